/** Subordinate user and group ids that nobody has yet: two users with the same ones could read each other's files. subuid(5), subgid(5). */
import { closeSync, constants, fstatSync, openSync, readSync } from "node:fs";

/** How many ids a Debian root file system needs. */
const wanted = 65_536;

/** Where distributions begin to give ids out (SUB_UID_MIN of login.defs(5)), and the last one they give (SUB_UID_MAX). */
const range = { first: 100_000, last: 600_100_000 } as const;

const limits = { bytes: 1 << 20, lines: 10_000 } as const;

/** What lets an ordinary user have the subordinate ids that a root file system needs. */
export function userNamespaceHint(files: readonly string[] = ["/etc/subuid", "/etc/subgid"]): string {
  const taken = files.map(readSmall);
  const free = taken.includes(undefined) ? undefined : firstFreeRange(taken.join("\n"));
  const ids = free === undefined ? "FIRST-LAST" : `${free.first}-${free.last}`;
  return `As an ordinary user this needs user namespaces and a range of subordinate ids${free === undefined ? `, ${wanted} that nobody has in ${files.join(" and ")}` : ""}: sudo apt-get install -y uidmap && sudo usermod --add-subuids ${ids} --add-subgids ${ids} "$(id -un)"`;
}

/**
 * The first 65,536 ids from 100000 upwards that no line of `text` (lines as `name:first:count`) gives to anybody. Lines that
 * are none count as not there; undefined if nothing is free or there are more than 10,000 lines.
 */
export function firstFreeRange(text: string): { first: number; last: number } | undefined {
  const lines = text.split("\n", limits.lines + 1);
  if (lines.length > limits.lines) return undefined;
  const taken = lines.flatMap((line) => {
    const [, first, count] = /^[^:]*:([0-9]{1,10}):([0-9]{1,10})$/.exec(line.trim()) ?? [];
    return first === undefined ? [] : [{ first: Number(first), end: Number(first) + Number(count) }];
  });
  let first: number = range.first;
  for (const each of taken.sort((a, b) => a.first - b.first)) {
    if (each.end > first && each.first < first + wanted) first = each.end;
  }
  const last = first + wanted - 1;
  return last <= range.last ? { first, last } : undefined;
}

/** A small regular file; empty if there is none, undefined if it is anything else or too large. Errors are made synchronously, so this is too. */
function readSmall(path: string): string | undefined {
  let fd: number | undefined;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    const stat = fstatSync(fd);
    if (!stat.isFile() || stat.size > limits.bytes) return undefined;
    const buffer = Buffer.alloc(stat.size);
    return buffer.toString("latin1", 0, readSync(fd, buffer, 0, buffer.length, 0));
  } catch (error) {
    return error instanceof Error && "code" in error && error.code === "ENOENT" ? "" : undefined;
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}
