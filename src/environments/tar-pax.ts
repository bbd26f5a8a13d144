import { PyroError } from "../base/error.js";

/** The records of one PAX extended header, values as bytes. Later ones of the same key replace earlier ones. */
export type PaxRecords = Map<string, Buffer>;

/**
 * Reads the records `LENGTH KEY=VALUE\n` (POSIX.1-2017, pax, "pax Extended Header") into `records`. Keys are kept as latin1, so
 * that every byte of an extended attribute's name survives. GNU.sparse.offset and .numbytes come many times; they are collected
 * in `GNU.sparse.map` as format 0.1 writes it. An empty value removes what an earlier header said.
 * Throws ENVIRONMENT_INVALID with `where` in it.
 */
export function parsePax(data: Buffer, records: PaxRecords, where: string): void {
  const fail = (what: string) => new PyroError("ENVIRONMENT_INVALID", `The archive is damaged: ${what} in the extended header at ${where}.`);
  const pairs: string[] = [];
  let at = 0;
  while (at < data.length) {
    // Some writers pad the header's data with NULs.
    if (data[at] === 0) break;
    let length = 0;
    let digits = 0;
    for (; at + digits < data.length && digits < 10; digits++) {
      const byte = data[at + digits]!;
      if (byte < 0x30 || byte > 0x39) break;
      length = length * 10 + (byte - 0x30);
    }
    if (digits === 0 || data[at + digits] !== 0x20) throw fail("a record without a length");
    const end = at + length;
    if (end > data.length || length < digits + 4 || data[end - 1] !== 0x0a) throw fail("a record of a wrong length");
    const equals = data.indexOf(0x3d, at + digits + 1);
    if (equals === -1 || equals >= end - 1 || equals === at + digits + 1) throw fail("a record without a key");
    const key = data.toString("latin1", at + digits + 1, equals);
    const value = data.subarray(equals + 1, end - 1);
    if (key === "GNU.sparse.offset" || key === "GNU.sparse.numbytes") pairs.push(value.toString("latin1"));
    else if (value.length === 0 && !isAttribute(key)) records.delete(key);
    else records.set(key, Buffer.from(value));
    at = end;
  }
  if (pairs.length > 0) records.set("GNU.sparse.map", Buffer.from(pairs.join(","), "latin1"));
}

function isAttribute(key: string): boolean {
  return key.startsWith("SCHILY.xattr.") || key.startsWith("LIBARCHIVE.xattr.");
}
