/** Writes images in a temporary directory and asks other programs about them. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect } from "vitest";
import { findProgram, runChild } from "../../src/base/child.js";
import { writeErofs, type ErofsOptions, type ErofsResult } from "../../src/environments/erofs.js";
import { readTar, type TarLimits } from "../../src/environments/tar.js";
import { readErofs, type ReadInode } from "./erofs-reader.js";
import { stream } from "./tar-maker.js";

/** A directory for the tests of this file, removed when they are through. */
export function useDirectory(): { path: () => string; newName: () => string } {
  let directory = "";
  let count = 0;
  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), "pyro-erofs-"));
  });
  afterAll(() => rm(directory, { recursive: true, force: true }));
  return { path: () => directory, newName: () => join(directory, `${++count}.erofs`) };
}

export interface MakeOptions extends ErofsOptions {
  tarLimits?: Partial<TarLimits>;
  chunkBytes?: number;
}

export async function make(path: string, tar: Buffer, options: MakeOptions = {}): Promise<ErofsResult> {
  return writeErofs(readTar(stream(tar, options.chunkBytes), { ...(options.tarLimits === undefined ? {} : { limits: options.tarLimits }), ...(options.signal === undefined ? {} : { signal: options.signal }) }), path, options);
}

/** Makes the image, has fsck.erofs look at it, and reads it. */
export async function makeAndRead(path: string, tar: Buffer, options: MakeOptions = {}): Promise<Map<string, ReadInode>> {
  await make(path, tar, options);
  await fsck(path);
  return readErofs(path);
}

/** fsck.erofs has nothing to say against the image. Prints why if it can't be asked. */
export async function fsck(path: string): Promise<void> {
  if (!(await has("fsck.erofs"))) return console.warn(`${path} was not checked: fsck.erofs is not installed (apt-get install erofs-utils)`);
  const { code, stdout, stderr } = await runChild("fsck.erofs", ["-d3", "--extract", path]);
  expect(stdout.toString() + stderr).toContain("No errors found");
  expect(code).toBe(0);
}

export async function has(program: string): Promise<boolean> {
  return findProgram(program).then(
    () => true,
    () => false,
  );
}
