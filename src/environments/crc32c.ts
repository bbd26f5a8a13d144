/** CRC-32C (Castagnoli polynomial, reflected: 0x82f63b78) without the final inversion, as EROFS has its superblock's checksum. */
export function crc32c(data: Uint8Array, seed = 0xffffffff): number {
  let crc = seed;
  for (const byte of data) crc = table[(crc ^ byte) & 0xff]! ^ (crc >>> 8);
  return crc >>> 0;
}

const table = Uint32Array.from({ length: 256 }, (_, index) => {
  let value = index;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0x82f63b78 : value >>> 1;
  return value;
});
