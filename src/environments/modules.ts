/** Kernel modules: what each depends on, read from the module itself, and in which order they go in. ELF: System V ABI, chapter 4. */
import { PyroError } from "../base/error.js";
import { harmlessLine } from "../base/harmless.js";

/** A module's own description, its section `.modinfo`. */
export interface ModuleInfo {
  depends: string[];
  /** The release of the kernel it was built for. */
  release: string;
}

export const moduleLimits = { bytes: 16 << 20, sections: 4096, modinfoBytes: 1 << 20, depends: 256, modules: 99 } as const;

/** Reads a 64-bit little-endian ELF module. Throws ENVIRONMENT_INVALID; `name` is for the message. */
export function readModuleInfo(elf: Buffer, name: string): ModuleInfo {
  const values = readModinfo(elf, name);
  const depends = values("depends").flatMap((value) => value.split(",")).filter((each) => each !== "").map((each) => each.replaceAll("-", "_"));
  if (depends.length > moduleLimits.depends) throw invalid(name, `it depends on ${depends.length} modules; at most ${moduleLimits.depends} are allowed`);
  for (const each of depends) if (!/^[A-Za-z0-9_]{1,64}$/.test(each)) throw invalid(name, "it depends on something that is no module's name");
  const release = values("vermagic")[0]?.split(" ")[0] ?? "";
  if (!/^[A-Za-z0-9][A-Za-z0-9.+~_-]{0,127}$/.test(release)) throw invalid(name, "it does not say which kernel it is for");
  return { depends, release };
}

/**
 * `wanted` and all they depend on, each after what it depends on, otherwise in the order wanted. Names that `isBuiltIn` knows
 * are left out. Throws ENVIRONMENT_INVALID for a module that is neither there nor built in, and for a circle.
 */
export function orderModules(wanted: readonly string[], modules: ReadonlyMap<string, ModuleInfo>, isBuiltIn: (name: string) => boolean): string[] {
  const order: string[] = [];
  const state = new Map<string, "open" | "done">();
  const visit = (name: string, neededBy: string | undefined) => {
    if (state.get(name) === "done") return;
    if (state.get(name) === "open") throw new PyroError("ENVIRONMENT_INVALID", `The kernel modules depend on each other in a circle, through ${name}.`);
    const info = modules.get(name);
    if (info === undefined) {
      if (isBuiltIn(name)) return;
      throw new PyroError("ENVIRONMENT_INVALID", `The kernel module ${name}${neededBy === undefined ? "" : `, which ${neededBy} needs,`} is not there.`);
    }
    if (state.size >= moduleLimits.modules) throw new PyroError("ENVIRONMENT_INVALID", `More than ${moduleLimits.modules} kernel modules would be needed.`);
    state.set(name, "open");
    for (const each of info.depends) visit(each, name);
    state.set(name, "done");
    order.push(name);
  };
  for (const name of wanted) visit(name, undefined);
  return order;
}

/** A module's name out of its file's name; the kernel makes no difference between `-` and `_`. */
export function moduleName(fileName: string): string {
  return fileName.replace(/^.*\//, "").replace(/\.ko$/, "").replaceAll("-", "_");
}

function readModinfo(elf: Buffer, name: string): (key: string) => string[] {
  if (elf.length > moduleLimits.bytes) throw invalid(name, `it has ${elf.length} bytes; at most ${moduleLimits.bytes} are allowed`);
  if (elf.length < 64 || elf.readUInt32BE(0) !== 0x7f454c46 || elf[4] !== 2 || elf[5] !== 1) throw invalid(name, "it is no 64-bit little-endian ELF file");
  const table = number(elf.readBigUInt64LE(40));
  const entryBytes = elf.readUInt16LE(58);
  const count = elf.readUInt16LE(60);
  const namesIndex = elf.readUInt16LE(62);
  if (entryBytes !== 64 || count === 0 || count > moduleLimits.sections || namesIndex >= count || table + count * 64 > elf.length) throw invalid(name, "its section table is damaged");
  const section = (index: number): Buffer => {
    const at = table + index * 64;
    const offset = number(elf.readBigUInt64LE(at + 24));
    const size = number(elf.readBigUInt64LE(at + 32));
    if (offset + size > elf.length) throw invalid(name, `its section ${index} lies outside the file`);
    return elf.subarray(offset, offset + size);
  };
  const names = section(namesIndex);
  for (let index = 0; index < count; index++) {
    const nameAt = elf.readUInt32LE(table + index * 64);
    if (names.toString("latin1", nameAt, nameAt + 9) !== ".modinfo\0") continue;
    const content = section(index);
    if (content.length > moduleLimits.modinfoBytes) throw invalid(name, `its description has more than ${moduleLimits.modinfoBytes} bytes`);
    const pairs = content.toString("latin1").split("\0");
    return (key) => pairs.filter((pair) => pair.startsWith(`${key}=`)).map((pair) => pair.slice(key.length + 1));
  }
  throw invalid(name, "it has no section .modinfo");
}

/** Beyond 2^48 nothing fits into a file that is here; sums of two such numbers stay exact. */
function number(value: bigint): number {
  return value > 0xffff_ffff_ffffn ? 0xffff_ffff_ffff : Number(value);
}

function invalid(name: string, why: string): PyroError {
  return new PyroError("ENVIRONMENT_INVALID", `The kernel module ${harmlessLine(name, 100)} can't be used: ${why}.`);
}
