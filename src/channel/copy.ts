/** Trees of files into and out of the guest. What they become on the host is the caller's. */
import { PyroError } from "../base/error.js";
import { checkSignal } from "../base/deadline.js";
import { violation } from "./codec.js";
import { answerOf } from "./answer.js";
import { outputOf, pathBytes, writeContent, type GuestPath } from "./files.js";
import { u32, u8 } from "./message.js";
import type { Mux } from "./mux.js";
import type { GuestStream } from "./stream.js";
import { readTree, type TreeLimits } from "./tree-reader.js";
import { writeTree } from "./tree-writer.js";
import type { TreeEntry, TreeTotals } from "./tree.js";

export interface PackOptions extends TreeLimits {
  signal?: AbortSignal;
}

/** To be iterated once. Leaving the loop early stops the guest. */
export interface PackedTree extends AsyncIterable<TreeEntry> {
  /** Comes with the end of the entries; rejects with what broke them. */
  readonly totals: Promise<TreeTotals>;
}

export interface UnpackOptions {
  /** Into a directory that is there already, which keeps its mode, owner and time, or over a file: files are replaced one by one. */
  merge?: boolean;
  makeParents?: boolean;
  /** Owners as the entries have them; otherwise everything is root's. */
  owners?: boolean;
  signal?: AbortSignal;
}

/**
 * What is at `path`: a directory with all below it, or one file, link or fifo. No link is followed and no other mount entered. The entries break with NOT_FOUND,
 * DENIED, INVALID_STATE (also above a limit), PROTOCOL, CANCELLED and what ends the channel.
 */
export function packTree(mux: Mux, path: GuestPath, options: PackOptions = {}): PackedTree {
  checkSignal(options.signal);
  const stream = outputOf(mux, [["KIND", u8(16)], ["PATH", pathBytes(path)]], `copy ${path.toString()}`, options.signal, ["BYTES_1", "ENTRIES", "SKIPPED"]);
  let settle!: { resolve: (totals: TreeTotals) => void; reject: (error: unknown) => void };
  const totals = new Promise<TreeTotals>((resolve, reject) => (settle = { resolve, reject }));
  totals.catch(() => {});
  return {
    totals,
    async *[Symbol.asyncIterator]() {
      try {
        const read = yield* readTree(stream.outputs[0]!.readable as AsyncIterable<Buffer>, options);
        settle.resolve({ ...read, skipped: await skippedOf(stream, read.entries) });
      } catch (error) {
        settle.reject(error);
        throw error;
      } finally {
        settle.reject(new PyroError("CANCELLED", `The copy of ${path.toString()} was not read to its end.`)); // changes nothing after the end
      }
    },
  };
}

/** The output has ended well, so this is a success. */
async function skippedOf(stream: GuestStream, entries: number): Promise<number> {
  const result = await stream.result;
  if (!("fields" in result)) throw violation("a whole tree and a failure");
  if (result.fields.get("ENTRIES")!.readBigUInt64LE() !== BigInt(entries)) throw violation("RESULT with another number of entries than its tree");
  return Number(result.fields.get("SKIPPED")!.readBigUInt64LE());
}

/**
 * Makes `entries` at `path`, which must not exist (EXISTS). Until all has arrived it has another name beside `path`, so a copy that breaks leaves nothing, except with `merge`.
 * Rejects with INVALID_ARGUMENT for entries that no tree can have, with what `entries` throws, and as `writeFile` does.
 */
export async function unpackTree(mux: Mux, path: GuestPath, entries: AsyncIterable<TreeEntry> | Iterable<TreeEntry>, options: UnpackOptions = {}): Promise<{ entries: number }> {
  checkSignal(options.signal);
  const flags = (options.merge ? 1 : 0) | (options.makeParents ? 2 : 0) | (options.owners ? 4 : 0);
  const stream = mux.open([["KIND", u8(17)], ["PATH", pathBytes(path)], ["FLAGS", u32(flags)]], { result: ["ENTRIES"], input: true });
  const fields = await writeContent(stream, writeTree(entries), (sent) => answerOf(stream, `copy to ${path.toString()}`, options.signal, sent));
  return { entries: Number(fields.get("ENTRIES")!.readBigUInt64LE()) };
}
