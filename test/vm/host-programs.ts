// Programs of this host in a guest: the real thing, with the libraries and the loader that it has here, so that it matters to neither side which release of
// Debian the other one is. All of it is one directory, /opt/host in the guest; what is run is below /opt/host/bin.
import { execFileSync } from "node:child_process";
import { chmodSync, copyFileSync, cpSync, existsSync, mkdirSync, readdirSync, realpathSync, writeFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";

export const inGuest = "/opt/host";

/** OpenSSH's client, Python with pip, Node with npm; `directory` is to be copied to /opt/host. A sentence if this host's can't be taken along. */
export function collectClients(directory: string): string | undefined {
  for (const each of ["bin", "programs", "libraries", "lib/node_modules", "lib/python3/dist-packages"]) mkdirSync(join(directory, each), { recursive: true });
  const npm = npmDirectory();
  if (npm === undefined) return "the npm of this host is in many places, as Debian's is: it can't be taken along";
  addProgram(directory, "ssh", "/usr/bin/ssh");
  addProgram(directory, "node", process.execPath);
  cpSync(npm, join(directory, "lib/node_modules/npm"), { recursive: true, preserveTimestamps: true, filter: (path) => !/\/npm\/(docs|man)$/.test(path) });
  addPython(directory);
  return undefined;
}

/** A script that runs it by its own loader; what it has to load is copied. */
function addProgram(directory: string, name: string, path: string): void {
  copyFileSync(realpathSync(path), join(directory, "programs", name));
  addLibraries(directory, [path]);
  writeFileSync(join(directory, "bin", name), `#!/bin/sh\nexec ${inGuest}/libraries/loader --library-path ${inGuest}/libraries ${inGuest}/programs/${name} "$@"\n`);
  chmodSync(join(directory, "bin", name), 0o755);
}

function addLibraries(directory: string, files: readonly string[]): void {
  const text = execFileSync("ldd", files, { encoding: "utf8" });
  const libraries = new Set([...text.matchAll(/^\t(?:\S+ => )?(\/\S+) \(0x/gm)].map(([, path]) => path!));
  for (const each of libraries) {
    const name = basename(each).startsWith("ld-linux") ? "loader" : basename(each);
    if (!existsSync(join(directory, "libraries", name))) copyFileSync(each, join(directory, "libraries", name));
  }
}

/** Debian's, with the standard library as far as pip has a use for it. Python finds that by where its program is. */
function addPython(directory: string): void {
  const python = realpathSync("/usr/bin/python3");
  const [library, pip] = execFileSync(python, ["-Ic", "import os, pip; print(os.path.dirname(os.__file__)); print(os.path.dirname(pip.__file__))"], { encoding: "utf8" }).trim().split("\n") as [string, string];
  addProgram(directory, "python3", python);
  const unused = /\/(config-[^/]+|test|idlelib|lib2to3|ensurepip|turtledemo|tkinter|dist-packages)$/;
  cpSync(library, join(directory, "lib", basename(library)), { recursive: true, preserveTimestamps: true, filter: (path) => !unused.test(path) });
  cpSync(pip, join(directory, "lib/python3/dist-packages/pip"), { recursive: true, preserveTimestamps: true });
  const loaded = join(library, "lib-dynload");
  addLibraries(directory, readdirSync(loaded).filter((name) => name.endsWith(".so") && !name.includes("tkinter")).map((name) => join(loaded, name)));
}

/** Where npm is with all that it needs, next to nothing else. */
function npmDirectory(): string | undefined {
  const program = realpathSync(execFileSync("sh", ["-c", "command -v npm"], { encoding: "utf8" }).trim());
  const directory = dirname(dirname(program));
  return existsSync(join(directory, "node_modules/semver")) ? directory : undefined;
}
