/**
 * An empty copy-on-write disk, as QEMU's qcow2 has it (docs/interop/qcow2.txt of QEMU, version 3 header): all reads fall
 * through to the backing image, which is named to QEMU on its command line and not in the file.
 */

const clusterBits = 16;
const clusterBytes = 1 << clusterBits;
/** An L2 table is one cluster of 8-byte entries, each for one cluster: 512 MiB for each L1 entry. */
const bytesPerL1Entry = (clusterBytes / 8) * clusterBytes;
const headerBytes = 104;
const refcountOrder = 4; // 16 bits
/** L1 entries that fit into the one cluster that is written for them: 4 TiB. */
export const maxOverlayBytes = (clusterBytes / 8) * bytesPerL1Entry;

/** The whole content of an overlay for a disk of `sizeBytes` (a multiple of 512, at most 4 TiB). */
export function emptyOverlay(sizeBytes: number): Buffer {
  if (!Number.isSafeInteger(sizeBytes) || sizeBytes <= 0 || sizeBytes % 512 !== 0 || sizeBytes > maxOverlayBytes) {
    throw new RangeError(`A scratch disk of ${sizeBytes} bytes: it must be a multiple of 512, at most ${maxOverlayBytes}.`);
  }
  const [refcountTable, refcountBlock, l1Table, clusters] = [1, 2, 3, 4] as const;
  const image = Buffer.alloc(clusters * clusterBytes);
  image.write("QFI\xfb", 0, "latin1");
  image.writeUInt32BE(3, 4); // version
  // 8: backing file offset and length: none named
  image.writeUInt32BE(clusterBits, 20);
  image.writeBigUInt64BE(BigInt(sizeBytes), 24);
  // 32: no encryption
  image.writeUInt32BE(Math.ceil(sizeBytes / bytesPerL1Entry), 36); // L1 entries
  image.writeBigUInt64BE(BigInt(l1Table * clusterBytes), 40);
  image.writeBigUInt64BE(BigInt(refcountTable * clusterBytes), 48);
  image.writeUInt32BE(1, 56); // clusters of the refcount table
  // 60: no snapshots; 72: no incompatible, compatible or autoclear features
  image.writeUInt32BE(refcountOrder, 96);
  image.writeUInt32BE(headerBytes, 100);
  // 104: end of the header extensions, type 0 and length 0
  image.writeBigUInt64BE(BigInt(refcountBlock * clusterBytes), refcountTable * clusterBytes);
  for (let cluster = 0; cluster < clusters; cluster++) image.writeUInt16BE(1, refcountBlock * clusterBytes + 2 * cluster);
  return image;
}
