/** The layers of a VM's scratch disk: an empty file system that all share, what the template wrote, what the VM writes. */
import { constants, copyFile, open, rm, type FileHandle } from "node:fs/promises";
import { join } from "node:path";
import { PyroError, systemCode } from "../../base/error.js";
import { settled } from "../../base/settled.js";
import { placeNames } from "../place.js";
import { emptyOverlay } from "../qcow2.js";
import { openUnnamed } from "../unnamed-file.js";
import type { VmSpec } from "../vmm.js";
import type { Disks } from "./qemu-command.js";
import { openDisk } from "./qemu-process.js";

/**
 * Opens them; `files` gets each handle, for the caller to close. `frozen` is the template's layer, for a fork. Without a place the VM's own layer
 * has no name and goes with the VM. With one, it and the template's stay in the place, so that the VM can be booted from them once it was stopped.
 */
export async function openScratch(spec: VmSpec, baseFile: string, files: FileHandle[], frozen?: string): Promise<NonNullable<Disks["scratch"]>> {
  const opened = async (file: Promise<FileHandle>) => {
    files.push(await file);
    return files.at(-1)!;
  };
  if (spec.place === undefined) {
    const [base, below, top] = await settled([openDisk(baseFile, files), frozen === undefined ? undefined : opened(open(frozen, constants.O_RDONLY)), opened(openUnnamed(spec.temporaryDirectory))]);
    await writeOverlay(top, base);
    return { base, top, ...(below !== undefined && { frozen: below }) };
  }
  const base = await openDisk(baseFile, files);
  const { directory, disk } = spec.place;
  const [topFile, frozenFile] = [join(directory, placeNames.scratch), join(directory, placeNames.frozen)];
  if (disk === "new") {
    await Promise.all([rm(topFile, { force: true }), rm(frozenFile, { force: true })]);
    // A copy of these few hundred kilobytes: a second name would change the template's stamp, which then counts as damaged.
    if (frozen !== undefined) await copyFile(frozen, frozenFile, constants.COPYFILE_FICLONE);
  }
  const below = await opened(open(frozenFile, constants.O_RDONLY)).catch(ignoreMissing);
  const top = await opened(open(topFile, constants.O_RDWR | (disk === "new" ? constants.O_CREAT | constants.O_EXCL : 0), 0o600)).catch((error: unknown) => {
    if (systemCode(error) !== "ENOENT") throw error;
    throw new PyroError("INVALID_STATE", "The VM's disk is not there any more.", { hint: "Delete the VM and create another one.", cause: error });
  });
  if (disk === "new") await writeOverlay(top, base);
  return { base, top, ...(below !== undefined && { frozen: below }) };
}

export async function writeOverlay(top: FileHandle, base: FileHandle): Promise<void> {
  const overlay = emptyOverlay((await base.stat()).size);
  await top.write(overlay, 0, overlay.length, 0);
}

function ignoreMissing(error: unknown): undefined {
  if (systemCode(error) !== "ENOENT") throw error;
}
