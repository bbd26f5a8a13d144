/**
 * Pipes for a child's standard streams. Node's own are sockets, which a program can't open again by name (`/dev/stdin`, `/dev/stderr`), and some do.
 */
import { closeSync, constants, openSync } from "node:fs";
import { rm } from "node:fs/promises";
import { Socket } from "node:net";
import { join } from "node:path";
import type { Readable, Writable } from "node:stream";
import { runChild } from "./child.js";
import { PyroError } from "./error.js";

export interface Pipes {
  /** The child's ends: standard input, output and error. */
  readonly theirs: readonly [number, number, number];
  readonly stdin: Writable;
  readonly stdout: Readable;
  readonly stderr: Readable;
  /** Closes our copies of the child's ends, once the child has them: a stream ends when nobody has its other end any more. */
  handOver(): void;
  /** Closes all that is still open. */
  close(): void;
}

/** Makes three pipes. `directory`, for this user alone, holds their names for a moment. */
export async function makePipes(directory: string): Promise<Pipes> {
  const names = ["in", "out", "err"].map((name) => join(directory, name)) as [string, string, string];
  const { code, stderr: said } = await runChild("mkfifo", ["-m", "600", "--", ...names]);
  if (code !== 0) throw new PyroError("INTERNAL", `No pipes could be made: ${said.trim()}`);
  const { O_RDONLY, O_WRONLY, O_RDWR, O_NONBLOCK } = constants;
  const open: number[] = [];
  const opened = (name: string, flags: number) => {
    const fd = openSync(name, flags);
    open.push(fd);
    return fd;
  };
  try {
    // None of these waits: open(2) of one end does so only where nobody has the other.
    const both = openSync(names[0], O_RDWR);
    const theirIn = opened(names[0], O_RDONLY);
    const ourIn = opened(names[0], O_WRONLY | O_NONBLOCK);
    closeSync(both);
    const [ourOut, theirOut] = [opened(names[1], O_RDONLY | O_NONBLOCK), opened(names[1], O_WRONLY)];
    const [ourErr, theirErr] = [opened(names[2], O_RDONLY | O_NONBLOCK), opened(names[2], O_WRONLY)];
    const theirs = [theirIn, theirOut, theirErr] as const;
    const stdin = new Socket({ fd: ourIn, readable: false, writable: true });
    const [stdout, stderr] = [new Socket({ fd: ourOut, readable: true, writable: false }), new Socket({ fd: ourErr, readable: true, writable: false })];
    const left = [...theirs];
    const handOver = () => left.splice(0).forEach((fd) => closeSync(fd));
    for (const each of [stdin, stdout, stderr]) each.on("error", () => {}); // whoever listens hears of it
    return {
      theirs,
      stdin,
      stdout,
      stderr,
      handOver,
      close: () => {
        handOver();
        for (const each of [stdin, stdout, stderr]) each.destroy();
      },
    };
  } catch (error) {
    for (const fd of open) closeSync(fd);
    throw error;
  } finally {
    await Promise.all(names.map((name) => rm(name, { force: true })));
  }
}
