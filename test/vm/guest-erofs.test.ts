// The guest's own kernel mounts what our EROFS writer makes of an archive with every kind of entry, and finds in it what the archive said.
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { writeErofs } from "../../src/environments/erofs.js";
import { readTar } from "../../src/environments/tar.js";
import { archive, header, member, stream } from "../environments/tar-maker.js";
import { bytesOf, text, useGuests } from "./guest.js";

const guests = useGuests();
guests.endAfterEach();

const capability = Buffer.from("0100000200240000000000000000000000000000", "hex");
const gib = 2 ** 30;

test("every kind of entry is in the mounted image as it was in the archive", async () => {
  const program = guests.path("check");
  execFileSync("gcc", ["-static", "-Os", "-s", "-o", program, new URL("guest-erofs.c", import.meta.url).pathname]);
  const path = guests.path("all.erofs");
  const when = 1_600_000_000;
  const bytes = archive(
    { name: "./", type: "5", mode: 0o755, mtime: when },
    { name: "check", mode: 0o755, mtime: when, data: readFileSync(program) },
    { name: "empty", mode: 0, mtime: 0 },
    { name: "short", mode: 0o4755, uid: 1000, gid: 1001, mtime: when, pax: { mtime: "1600000000.123456789" }, data: "short" },
    { name: "block", mode: 0o2711, mtime: when, data: Buffer.alloc(4096, "b") },
    { name: "almost", mode: 0o1644, mtime: when, data: Buffer.alloc(4095, "a") },
    { name: "long", mtime: when, data: Buffer.alloc(1_000_003, "0123456789") },
    { name: "hard", type: "1", link: "long" },
    { name: "soft", type: "2", mode: 0o777, mtime: when, link: "short" },
    { name: "far", type: "2", mode: 0o777, mtime: when, pax: { linkpath: "t".repeat(4000) } },
    { name: "null", type: "3", mode: 0o666, mtime: when, device: [1, 3] },
    { name: "disk", type: "4", mode: 0o660, gid: 6, mtime: when, device: [259, 70_000] },
    { name: "pipe", type: "6", mode: 0o640, mtime: when },
    { name: "tmp", type: "5", mode: 0o1777, mtime: when },
    { name: "late", mtime: when, pax: { mtime: "5000000000.5", uid: "3000000000", gid: "4000000000" }, data: "" },
    { name: Buffer.from("tmp/\xff\xfe \n\\", "latin1"), mtime: when, data: "odd" },
    { name: "x", mtime: when, pax: { path: `tmp/${"n".repeat(255)}` } },
    { name: "cap", mode: 0o755, mtime: when, data: "c", pax: { "SCHILY.xattr.security.capability": capability, "SCHILY.xattr.user.note": Buffer.from([0, 255, 10]), "SCHILY.xattr.trusted.more": "yes" } },
    { name: "acl", mode: 0o664, mtime: when, data: "d", pax: { "SCHILY.acl.access": "user::rw-,user:12596:r--,group::r--,mask::rw-,other::r--" } },
    { name: "empty-dir", type: "5", mode: 0o750, uid: 70_000, gid: 80_000, mtime: when },
    { name: "many", type: "5", mode: 0o755, mtime: when },
    Buffer.concat(Array.from({ length: 100_000 }, (_, at) => header({ name: `many/${at}`, mode: at & 0o777, mtime: at }))),
    sparse("big", 5 * gib + 1, [[0, "begin"], [4 * gib + 4096, "middle"], [5 * gib, "!"]]),
  );
  await writeErofs(readTar(stream(bytes)), path);
  const { channel } = await guests.boot({ rootDisk: path, vcpuCount: 2 });

  const lines = (await text(channel, { argv: ["/check"] })).split("\n");
  expect(lines.filter((line) => !line.startsWith("/check "))).toEqual([
    `/ 40755 0:0 ${when}.000000000`,
    `/acl 100664 0:0 links=1 size=1 ${when}.000000000 fnv=af63d94c8601e773 system.posix_acl_access=0200000001000600ffffffff020004003431000004000400ffffffff10000600ffffffff20000400ffffffff`,
    `/almost 101644 0:0 links=1 size=4095 ${when}.000000000 fnv=${fnv(Buffer.alloc(4095, "a"))}`,
    `/big 100644 0:0 links=1 size=5368709121 ${when}.000000000`,
    `/block 102711 0:0 links=1 size=4096 ${when}.000000000 fnv=${fnv(Buffer.alloc(4096, "b"))}`,
    `/cap 100755 0:0 links=1 size=1 ${when}.000000000 fnv=af63de4c8601eff2 security.capability=0100000200240000000000000000000000000000 trusted.more=796573 user.note=00ff0a`,
    `/disk 60660 0:6 links=1 size=0 ${when}.000000000 259,70000`,
    `/empty 100000 0:0 links=1 size=0 0.000000000 fnv=cbf29ce484222325`,
    `/empty-dir 40750 70000:80000 ${when}.000000000`,
    `/far 120777 0:0 links=1 size=4000 ${when}.000000000 -> ${"t".repeat(4000)}`,
    `/hard 100644 0:0 links=2 size=1000003 ${when}.000000000 fnv=${fnv(Buffer.alloc(1_000_003, "0123456789"))}`,
    `/late 100644 3000000000:4000000000 links=1 size=0 5000000000.500000000 fnv=cbf29ce484222325`,
    `/long 100644 0:0 links=2 size=1000003 ${when}.000000000 fnv=${fnv(Buffer.alloc(1_000_003, "0123456789"))}`,
    `/many 40755 0:0 ${when}.000000000`,
    `/null 20666 0:0 links=1 size=0 ${when}.000000000 1,3`,
    `/pipe 10640 0:0 links=1 size=0 ${when}.000000000`,
    `/short 104755 1000:1001 links=1 size=5 ${when}.123456789 fnv=${fnv(Buffer.from("short"))}`,
    `/soft 120777 0:0 links=1 size=5 ${when}.000000000 -> short`,
    `/tmp 41777 0:0 ${when}.000000000`,
    `/tmp/${"n".repeat(255)} 100644 0:0 links=1 size=0 ${when}.000000000 fnv=cbf29ce484222325`,
    `/tmp/\\ff\\fe\\20\\0a\\5c 100644 0:0 links=1 size=3 ${when}.000000000 fnv=${fnv(Buffer.from("odd"))}`,
  ]);

  const many = await channel.list("/many");
  const wrong = many.filter(({ name, stat }) => {
    const at = Number(name.toString());
    return String(at) !== name.toString() || stat.type !== "file" || stat.mode !== (at & 0o777) || stat.mtimeNs !== BigInt(at) * 1_000_000_000n;
  });
  expect([many.length, new Set(many.map(({ name }) => name.toString())).size, wrong.length]).toEqual([100_000, 100_000, 0]);

  const at = async (offset: number, length: number) => (await bytesOf(channel.readFile("/big", { offset, length }))).toString("latin1");
  expect(await at(0, 8)).toBe("begin\0\0\0");
  expect(await at(4 * gib + 4094, 9)).toBe("\0\0middle\0");
  expect(await at(5 * gib - 2, 9)).toBe("\0\0!");
});

/** A file as GNU tar writes sparse ones (`--format=posix --sparse-version=0.1`). */
function sparse(name: string, size: number, parts: readonly [offset: number, data: string][]): Buffer {
  const data = Buffer.from(parts.map(([, text]) => text).join(""));
  const map = parts.map(([offset, text]) => `${offset},${text.length}`).join(",");
  return member({ name, mtime: 1_600_000_000, data, pax: { "GNU.sparse.size": String(size), "GNU.sparse.numblocks": String(parts.length), "GNU.sparse.name": name, "GNU.sparse.map": map } });
}

/** FNV-1a, 64 bits. */
function fnv(bytes: Uint8Array): string {
  let sum = 0xcbf29ce484222325n;
  for (const byte of bytes) sum = ((sum ^ BigInt(byte)) * 0x100000001b3n) & 0xffff_ffff_ffff_ffffn;
  return sum.toString(16).padStart(16, "0");
}
