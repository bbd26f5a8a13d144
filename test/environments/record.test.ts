import { chmod, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { readRecord } from "../../src/environments/record.js";

let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "pyro-record-"));
  await chmod(directory, 0o755);
});
afterAll(() => rm(directory, { recursive: true, force: true }));

test("a record that its owner may not read is damaged; a directory that can't be entered is not the record's fault", async () => {
  const path = join(directory, "record.json");
  await writeFile(path, "{}", { mode: 0o000 });
  await mkdir(join(directory, "closed"), { mode: 0o000 });
  const root = process.geteuid!() === 0;
  if (root) process.seteuid!(65534); // root may read everything
  try {
    await expect(readRecord(path, 100)).rejects.toMatchObject({ code: "ENVIRONMENT_INVALID", message: `${path} can't be read: EACCES.` });
    await expect(readRecord(join(directory, "closed/record.json"), 100)).rejects.toMatchObject({ code: "EACCES" });
    await expect(readRecord(join(path, "below"), 100)).rejects.toMatchObject({ code: "ENOTDIR" });
    expect(await readRecord(join(directory, "nothing"), 100)).toBeUndefined();
  } finally {
    if (root) process.seteuid!(0);
  }
});
