/** The three ways in which tar says where a sparse file has data (GNU tar manual, "Storing Sparse Files" and "Old GNU Format"). */
import { PyroError } from "../base/error.js";
import { parseDecimal, parseField } from "./tar-number.js";

/** A run of data in a file, bytes. */
export interface Extent {
  offset: number;
  length: number;
}

/** Old GNU: four extents in the header itself, then 21 in each extension block, as long as a flag says that there is one more. */
export async function readOldSparse(header: Buffer, nextBlock: () => Promise<Buffer>, maxExtents: number, name: string): Promise<{ extents: Extent[]; realSize: number }> {
  const extents: Extent[] = [];
  const take = (block: Buffer, start: number, count: number) => {
    for (let index = 0; index < count; index++) {
      const at = start + index * 24;
      if (block[at] === 0) return; // an unused slot
      const offset = parseField(block, at, 12);
      const length = parseField(block, at + 12, 12);
      if (offset === undefined || length === undefined) throw damaged(name);
      extents.push({ offset, length });
    }
  };
  take(header, 386, 4);
  const realSize = parseField(header, 483, 12);
  if (realSize === undefined) throw damaged(name);
  for (let more = header[482] !== 0; more; ) {
    const block = await nextBlock();
    take(block, 0, 21);
    if (extents.length > maxExtents) throw overLimit(maxExtents, name);
    more = block[504] !== 0;
  }
  return { extents, realSize };
}

/** PAX 1.0: decimal numbers, each on a line, in front of the data and padded to whole blocks: a count, then offset and length of each. */
export async function readSparseMap(nextBlock: () => Promise<Buffer>, maxExtents: number, name: string): Promise<Extent[]> {
  let block: Buffer = Buffer.alloc(0);
  let at = 0;
  const nextNumber = async () => {
    let value = 0;
    for (let digits = 0; ; digits++) {
      if (at === block.length) {
        block = await nextBlock();
        at = 0;
      }
      const byte = block[at++]!;
      if (byte === 0x0a && digits > 0) return value;
      if (byte < 0x30 || byte > 0x39 || digits === 16) throw damaged(name);
      value = value * 10 + (byte - 0x30);
    }
  };
  const count = await nextNumber();
  if (count > maxExtents) throw overLimit(maxExtents, name);
  const extents: Extent[] = [];
  for (let index = 0; index < count; index++) extents.push({ offset: await nextNumber(), length: await nextNumber() });
  return extents;
}

/** PAX 0.0 and 0.1: `offset,length,offset,length,…` in the extended header. */
export function parseSparseList(text: string, maxExtents: number, name: string): Extent[] {
  if (text === "") return [];
  const numbers = text.split(",", maxExtents * 2 + 1);
  if (numbers.length > maxExtents * 2) throw overLimit(maxExtents, name);
  if (numbers.length % 2 !== 0) throw damaged(name);
  const extents: Extent[] = [];
  for (let index = 0; index < numbers.length; index += 2) {
    const offset = parseDecimal(numbers[index]!);
    const length = parseDecimal(numbers[index + 1]!);
    if (offset === undefined || length === undefined) throw damaged(name);
    extents.push({ offset, length });
  }
  return extents;
}

/** Throws unless the extents ascend, lie within the file and add up to the data that is there. Leaves out the empty ones. */
export function checkExtents(extents: Extent[], realSize: number, storedBytes: number, name: string): Extent[] {
  let end = 0;
  let total = 0;
  for (const { offset, length } of extents) {
    if (offset < end || length < 0 || offset + length > realSize) throw damaged(name);
    end = offset + length;
    total += length;
  }
  if (total !== storedBytes || realSize < 0) throw damaged(name);
  return extents.filter((each) => each.length > 0);
}

function damaged(name: string): PyroError {
  return new PyroError("ENVIRONMENT_INVALID", `The archive is damaged: the map of the sparse file ${name} makes no sense.`);
}

function overLimit(maxExtents: number, name: string): PyroError {
  return new PyroError("ENVIRONMENT_INVALID", `The archive is over the limit maxSparseExtents (${maxExtents}) at ${name}.`);
}
