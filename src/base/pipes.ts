/**
 * Pipes for a child's standard streams. Node's own are sockets, which a program can't open again by name (`/dev/stdin`, `/dev/stderr`), and some do.
 */
import { closeSync, constants, openSync } from "node:fs";
import { Socket } from "node:net";
import type { Readable, Writable } from "node:stream";
import { keepChild } from "./child.js";
import { PyroError } from "./error.js";
import { nativeProgram } from "./paths.js";

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

/** Makes three pipes. */
export async function makePipes(): Promise<Pipes> {
  // The keeper holds them until we have opened both ends of each.
  const holder = await keepChild(nativeProgram("pyro-keeper"), ["pipes", "3"], { stdio: ["pipe", "pipe", "ignore"] });
  const { O_RDONLY, O_WRONLY, O_NONBLOCK } = constants;
  const open: number[] = [];
  try {
    const [pid, ...fds] = await numbersOf(holder.stdio[1]!);
    const opened = (index: number, flags: number) => {
      const fd = openSync(`/proc/${pid}/fd/${fds[index]}`, flags);
      open.push(fd);
      return fd;
    };
    const [theirIn, ourIn] = [opened(0, O_RDONLY), opened(1, O_WRONLY | O_NONBLOCK)];
    const [ourOut, theirOut] = [opened(2, O_RDONLY | O_NONBLOCK), opened(3, O_WRONLY)];
    const [ourErr, theirErr] = [opened(4, O_RDONLY | O_NONBLOCK), opened(5, O_WRONLY)];
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
    await holder.end();
  }
}

/** The first line, in numbers. */
async function numbersOf(stream: Readable): Promise<number[]> {
  let said = "";
  for await (const chunk of stream) {
    said += String(chunk);
    if (said.includes("\n")) break;
  }
  const numbers = said.trim().split(" ").map(Number);
  if (numbers.length !== 7 || numbers.some((each) => !Number.isInteger(each))) throw new PyroError("INTERNAL", "No pipes could be made.");
  return numbers;
}
