/** Small real inputs, made here: kernel modules, a kernel image, a kernel package, and stand-ins for the programs that fetch. */
import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll } from "vitest";
import { runChild } from "../../src/base/child.js";

/** A 64-bit ELF file with a section `.modinfo` and nothing else. */
export function makeModule(modinfo: readonly string[]): Buffer {
  const content = Buffer.from(modinfo.map((each) => `${each}\0`).join(""), "latin1");
  const names = Buffer.from("\0.shstrtab\0.modinfo\0", "latin1");
  const table = 64 + content.length + names.length;
  const elf = Buffer.alloc(table + 3 * 64);
  elf.write("\x7fELF\x02\x01\x01", 0, "latin1");
  elf.writeUInt16LE(1, 16); // relocatable
  elf.writeUInt16LE(62, 18); // x86-64
  elf.writeBigUInt64LE(BigInt(table), 40);
  elf.writeUInt16LE(64, 58);
  elf.writeUInt16LE(3, 60);
  elf.writeUInt16LE(1, 62);
  content.copy(elf, 64);
  names.copy(elf, 64 + content.length);
  const section = (index: number, name: number, offset: number, size: number) => {
    const at = table + index * 64;
    elf.writeUInt32LE(name, at);
    elf.writeBigUInt64LE(BigInt(offset), at + 24);
    elf.writeBigUInt64LE(BigInt(size), at + 32);
  };
  section(1, 1, 64 + content.length, names.length);
  section(2, 11, 64, content.length);
  return elf;
}

export function moduleFor(depends: string, release = "6.1.0-1-test"): Buffer {
  return makeModule(["license=GPL", `depends=${depends}`, "name=x", `vermagic=${release} SMP preempt mod_unload`]);
}

/** What `PYRO_KERNEL_DIR` names: a kernel and the modules that a guest needs, in a directory of their own below `parent`. */
export async function makeKernel(parent: string): Promise<string> {
  const kernel = join(parent, "kernel");
  await mkdir(join(kernel, "modules"), { recursive: true });
  await writeFile(join(kernel, "vmlinux"), makeVmlinux());
  for (const name of ["virtio_mmio", "virtio_blk", "virtio_console", "virtio_net", "erofs", "overlay", "virtio_balloon"]) await writeFile(join(kernel, "modules", `${name}.ko`), moduleFor(""));
  return kernel;
}

/** An ELF program header and 8 KiB of something. */
export function makeVmlinux(seed = 7): Buffer {
  const elf = Buffer.alloc(8192, seed);
  elf.fill(0, 0, 64);
  elf.write("\x7fELF\x02\x01\x01", 0, "latin1");
  elf.writeUInt16LE(2, 16);
  elf.writeUInt16LE(62, 18);
  return elf;
}

/** A bzImage around `compressed`: one boot sector, one set-up sector, 16 bytes of code, the payload, its unpacked size. */
export function makeBzImage(compressed: Buffer, unpackedBytes: number): Buffer {
  const start = 2 * 512 + 16;
  const image = Buffer.alloc(start + compressed.length + 4);
  image[0x1f1] = 1;
  image.writeUInt32LE(0x53726448, 0x202);
  image.writeUInt16LE(0x20f, 0x206);
  image.writeUInt32LE(16, 0x248);
  image.writeUInt32LE(compressed.length + 4, 0x24c);
  compressed.copy(image, start);
  image.writeUInt32LE(unpackedBytes, start + compressed.length);
  return image;
}

/** A directory that exists while the tests of the file run. */
export function useTemporary(): { path(): string } {
  let path = "";
  beforeAll(async () => void (path = await mkdtemp(join(tmpdir(), "pyro-environments-"))));
  afterAll(async () => rm(path, { recursive: true, force: true }));
  return { path: () => path };
}

/** Debian's modules and what each needs, as kernel 6.1 has them. */
const modules: readonly [string, string][] = [
  ["drivers/virtio/virtio_ring", ""],
  ["drivers/virtio/virtio", "virtio_ring"],
  ["drivers/virtio/virtio_mmio", "virtio,virtio_ring"],
  ["drivers/virtio/virtio_balloon", "virtio,virtio_ring"],
  ["drivers/block/virtio_blk", "virtio_ring,virtio"],
  ["drivers/char/virtio_console", "virtio_ring,virtio"],
  ["drivers/net/net_failover", "failover"],
  ["drivers/net/virtio_net", "net_failover,virtio,virtio_ring"],
  ["fs/erofs/erofs", "libcrc32c"],
  ["lib/libcrc32c", ""],
  ["net/core/failover", ""],
  ["drivers/char/hw_random/virtio-rng", "virtio,virtio_ring"],
];

/**
 * A directory of programs that stand in for apt, mmdebstrap and unshare, and the package they deliver. What they were asked
 * for is in `calls`. Put `bin` first in PATH.
 */
export async function makeFakeHost(directory: string): Promise<{ bin: string; calls(): Promise<string[]>; root: string }> {
  const bin = join(directory, "bin");
  const tree = join(directory, "tree");
  const root = join(directory, "root");
  const release = "6.1.0-1-test";
  await mkdir(join(tree, "DEBIAN"), { recursive: true });
  await writeFile(join(tree, "DEBIAN/control"), "Package: linux-image-6.1.0-1-test\nVersion: 6.1.1-1\nArchitecture: amd64\nMaintainer: nobody <nobody@localhost>\nDescription: a kernel\n");
  await mkdir(join(tree, "boot"));
  await writeFile(join(directory, "vmlinux"), makeVmlinux());
  const packed = await runChild("lz4", ["-l", "-9", "-c", "-q", join(directory, "vmlinux")]);
  await writeFile(join(tree, `boot/vmlinuz-${release}`), makeBzImage(packed.stdout, 8192));
  for (const [name, depends] of modules) {
    const file = join(tree, "lib/modules", release, "kernel", `${name}.ko`);
    await mkdir(join(file, ".."), { recursive: true });
    await writeFile(file, moduleFor(depends));
  }
  await writeFile(join(tree, "lib/modules", release, "modules.builtin"), "kernel/fs/overlayfs/overlay.ko\n");
  const built = await runChild("dpkg-deb", ["--root-owner-group", "--build", tree, join(directory, "kernel.deb")]);
  if (built.code !== 0) throw new Error(built.stderr);
  await mkdir(join(root, "var/lib/dpkg"), { recursive: true });
  await writeFile(join(root, "var/lib/dpkg/status"), "Package: bash\nStatus: install ok installed\nVersion: 5.2.15-2+b7\n\nPackage: gone\nStatus: deinstall ok config-files\nVersion: 1\n\nPackage: apt\nStatus: install ok installed\nVersion: 2.6.1\nDescription: x\n Version: fake\n");
  await mkdir(join(root, "etc/apt"), { recursive: true });
  await writeFile(join(root, "etc/apt/sources.list"), "deb http://user:secret@mirror.invalid/debian bookworm main\n");
  await mkdir(bin);
  const script = async (name: string, text: string) => {
    await writeFile(join(bin, name), `#!/bin/sh\necho "${name} $*" >> '${directory}/calls'\n${text}\n`);
    await chmod(join(bin, name), 0o755);
  };
  await script("apt-get", `
case "$*" in
  *update*) lists=$(sed -n 's/^Dir::State::Lists "\\(.*\\)";$/\\1/p' "$APT_CONFIG"); printf 'Origin: Debian\\nDate: Sat, 11 Jul 2026 10:16:37 UTC\\n' > "$lists/mirror_dists_bookworm_InRelease" ;;
  *download*) cp '${directory}/kernel.deb' linux-image-6.1.0-1-test_6.1.1-1_amd64.deb ;;
esac`);
  await script("apt-config", `printf "http_proxy='http://proxy.invalid:3128'\\nhttps_proxy='DIRECT'\\n"`);
  await script("apt-cache", `printf 'Package: linux-image-cloud-amd64\\nVersion: 6.1.1-1\\nDepends: linux-image-6.1.0-1-test (= 6.1.1-1)\\n'`);
  await script("mmdebstrap", `
cat > '${directory}/sources.list'
echo "$http_proxy $https_proxy" > '${directory}/proxies'
echo 'I: running apt-get update...' >&2
if [ -e '${directory}/fail' ]; then cat '${directory}/fail' >&2; exit 1; fi
if [ -e '${directory}/hang' ]; then touch "$TMPDIR/half"; sleep 1000; fi
echo 'I: creating tarball...' >&2
exec tar --sort=name --mtime=@1 --owner=0 --group=0 --numeric-owner --format=pax --pax-option=delete=atime,delete=ctime -C '${root}' -cf - .`);
  await script("unshare", `while [ "$1" != -- ]; do shift; done; shift; exec "$@"`);
  await script("newuidmap", ":");
  return { bin, root, calls: async () => (await readFile(join(directory, "calls"), "utf8").catch(() => "")).split("\n").filter((line) => line !== "") };
}

/** A small generator of numbers below `limit`, the same for the same seed (mulberry32). */
export function seeded(seed: number): (limit: number) => number {
  let state = seed;
  return (limit) => {
    state = (state + 0x6d2b79f5) | 0;
    let value = Math.imul(state ^ (state >>> 15), 1 | state);
    value = (value + Math.imul(value ^ (value >>> 7), 61 | value)) ^ value;
    return Math.floor((((value ^ (value >>> 14)) >>> 0) / 4294967296) * limit);
  };
}
