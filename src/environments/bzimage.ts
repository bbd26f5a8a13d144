/**
 * Debian's vmlinuz: a bzImage that carries the kernel proper, an ELF file, compressed. Format: Documentation/arch/x86/boot.rst
 * of Linux, "The Real-Mode Kernel Header"; LZ4's legacy frame: lz4_Frame_format.md, "Legacy frame".
 */
import { PyroError } from "../base/error.js";

/** Most bytes of a vmlinuz that are looked at. */
export const maxVmlinuzBytes = 128 << 20;
/** Most bytes that a kernel may have when unpacked. */
export const maxVmlinuxBytes = 512 << 20;

const lz4LegacyMagic = 0x184c2102;

export interface Payload {
  /** The compressed kernel, for `lz4 -d`. */
  compressed: Buffer;
  /** How many bytes it has when unpacked, as the kernel's build noted it down behind the compressed bytes. */
  unpackedBytes: number;
}

/** Finds the compressed kernel in `image`. Throws ENVIRONMENT_INVALID when it is no bzImage with an LZ4 kernel. */
export function findPayload(image: Buffer): Payload {
  if (image.length < 0x250 || image.length > maxVmlinuzBytes) throw invalid(`it has ${image.length} bytes`);
  if (image.readUInt32LE(0x202) !== 0x53726448) throw invalid("there is no boot header"); // "HdrS"
  const protocol = image.readUInt16LE(0x206);
  if (protocol < 0x208) throw invalid(`its boot protocol is 0x${protocol.toString(16)}, older than 0x208`);
  const setupSectors = image[0x1f1] === 0 ? 4 : image[0x1f1]!;
  // payload_offset counts from the start of the protected-mode code, which follows the boot sector and the set-up sectors.
  const start = (setupSectors + 1) * 512 + image.readUInt32LE(0x248);
  const length = image.readUInt32LE(0x24c);
  if (length < 16 || start + length > image.length) throw invalid(`its payload (${length} bytes at ${start}) is not inside its ${image.length} bytes`);
  const magic = image.readUInt32LE(start);
  if (magic !== lz4LegacyMagic) throw invalid(`its kernel is not compressed with LZ4 (it begins with 0x${magic.toString(16)})`);
  const unpackedBytes = image.readUInt32LE(start + length - 4);
  if (unpackedBytes < 4096 || unpackedBytes > maxVmlinuxBytes) throw invalid(`its kernel has ${unpackedBytes} bytes unpacked; allowed are 4096 to ${maxVmlinuxBytes}`);
  return { compressed: image.subarray(start, start + length - 4), unpackedBytes };
}

function invalid(why: string): PyroError {
  return new PyroError("ENVIRONMENT_INVALID", `The kernel image can't be used: ${why}.`);
}
