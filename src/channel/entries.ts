/** What is changed about the guest's files without their content: directories, names, owners, modes, times, links. */
import { Buffer } from "node:buffer";
import { checkSignal } from "../base/deadline.js";
import { answerOf } from "./answer.js";
import { modeBytes, pathBytes, type GuestPath } from "./files.js";
import { i64, invalid, u32, u8, type Field } from "./message.js";
import type { Mux } from "./mux.js";

export interface MakeDirectoryOptions {
  /** Permission bits, 0 to 0o7777; 0o755 when left out. */
  mode?: number;
  /** Make what is missing above it as well; then it may exist already. */
  makeParents?: boolean;
  signal?: AbortSignal;
}

export interface RemoveOptions {
  /** Also a directory that is not empty, with all below it. Links are removed, never followed; where something else is mounted it stops with INVALID_STATE. */
  recursive?: boolean;
  signal?: AbortSignal;
}

/** At least one of `mode`, `owner` and `mtimeNs`. */
export interface Change {
  /** Permission bits, 0 to 0o7777. */
  mode?: number;
  owner?: { uid: number; gid: number };
  /** Nanoseconds since 1970. */
  mtimeNs?: bigint;
  /** Change what a link points to instead of the link, which has no mode. */
  follow?: boolean;
}

/** Rejects with EXISTS, NOT_FOUND, DENIED, INVALID_STATE or what ends the channel, as all of these do. */
export async function makeDirectory(mux: Mux, path: GuestPath, options: MakeDirectoryOptions = {}): Promise<void> {
  const fields: Field[] = [["KIND", u8(11)], ["PATH", pathBytes(path)]];
  if (options.mode !== undefined) fields.push(["MODE", modeBytes(options.mode)]);
  fields.push(["FLAGS", u32(options.makeParents ? 1 : 0)]);
  await done(mux, fields, `make the directory ${path.toString()}`, options.signal);
}

/** A file, a link, an empty directory, or more. */
export async function remove(mux: Mux, path: GuestPath, options: RemoveOptions = {}): Promise<void> {
  await done(mux, [["KIND", u8(12)], ["PATH", pathBytes(path)], ["FLAGS", u32(options.recursive ? 1 : 0)]], `remove ${path.toString()}`, options.signal);
}

/** Replaces what `to` names, or with `exclusive` fails with EXISTS. */
export async function rename(mux: Mux, from: GuestPath, to: GuestPath, options: { exclusive?: boolean; signal?: AbortSignal } = {}): Promise<void> {
  const fields: Field[] = [["KIND", u8(13)], ["PATH", pathBytes(from)], ["TO", pathBytes(to)], ["FLAGS", u32(options.exclusive ? 1 : 0)]];
  await done(mux, fields, `rename ${from.toString()} to ${to.toString()}`, options.signal);
}

export async function change(mux: Mux, path: GuestPath, change: Change, options: { signal?: AbortSignal } = {}): Promise<void> {
  const fields: Field[] = [["KIND", u8(14)], ["PATH", pathBytes(path)]];
  if (change.mode !== undefined) fields.push(["MODE", modeBytes(change.mode)]);
  if (change.owner !== undefined) fields.push(["UID", idBytes(change.owner.uid)], ["GID", idBytes(change.owner.gid)]);
  if (change.mtimeNs !== undefined) fields.push(["MTIME", i64(change.mtimeNs)]);
  if (fields.length === 2) throw invalid("Nothing was given to change: mode, owner or time.");
  fields.push(["FLAGS", u32(change.follow ? 1 : 0)]);
  await done(mux, fields, `change ${path.toString()}`, options.signal);
}

/** A link at `path`. A symbolic one to any text; a hard one to what exists at `target`. */
export async function makeLink(mux: Mux, path: GuestPath, target: GuestPath, options: { hard?: boolean; signal?: AbortSignal } = {}): Promise<void> {
  const fields: Field[] = [["KIND", u8(15)], ["PATH", pathBytes(path)], ["TARGET", pathBytes(target)], ["FLAGS", u32(options.hard ? 1 : 0)]];
  await done(mux, fields, `make the link ${path.toString()}`, options.signal);
}

async function done(mux: Mux, fields: readonly Field[], what: string, signal: AbortSignal | undefined): Promise<void> {
  checkSignal(signal);
  await answerOf(mux.open(fields, { result: [] }), what, signal);
}

function idBytes(id: number): Buffer {
  if (!Number.isInteger(id) || id < 0 || id > 0xffff_fffe) throw invalid(`The owner is ${id}; 0 to 4294967294 are possible.`);
  return u32(id);
}
