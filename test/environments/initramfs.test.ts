import { expect, test } from "vitest";
import { runChild } from "../../src/base/child.js";
import { buildInitramfs } from "../../src/environments/initramfs.js";

const zero = "00000000";

test("byte for byte", () => {
  const header = (inode: string, mode: string, links: string, size: string, device: string, nameSize: string) => `070701${inode}${mode}${zero}${zero}${links}${zero}${size}${zero}${zero}${device}${nameSize}${zero}`;
  const archive = buildInitramfs(Buffer.from("INIT!"), [{ name: "a", content: Buffer.from("first") }, { name: "b_c", content: Buffer.from("12345678") }]);
  const expected =
    `${header("00000001", "000041ED", "00000002", zero, zero + zero, "00000004")}dev\0\0\0` +
    `${header("00000002", "00002180", "00000001", zero, "0000000500000001", "0000000C")}dev/console\0\0\0` +
    `${header("00000003", "000081ED", "00000001", "00000005", zero + zero, "00000005")}init\0\0INIT!\0\0\0` +
    `${header("00000004", "000041ED", "00000002", zero, zero + zero, "00000008")}modules\0\0\0` +
    `${header("00000005", "000081A4", "00000001", "00000005", zero + zero, "00000010")}modules/00-a.ko\0\0\0first\0\0\0` +
    `${header("00000006", "000081A4", "00000001", "00000008", zero + zero, "00000012")}modules/01-b_c.ko\x0012345678` +
    `${header("00000007", "000041ED", "00000002", zero, zero + zero, "00000005")}proc\0\0` +
    `${header("00000008", "000041ED", "00000002", zero, zero + zero, "00000004")}sys\0\0\0` +
    `${header(zero, zero, "00000001", zero, zero + zero, "0000000B")}TRAILER!!!\0\0\0\0`;
  expect(archive.toString("latin1").replace(/\0+$/, "")).toBe(expected.replace(/\0+$/, ""));
  expect(archive.length % 512).toBe(0);
});

test("cpio reads it", async ({ skip }) => {
  const archive = buildInitramfs(Buffer.alloc(70_001, 1), [{ name: "a", content: Buffer.alloc(3) }]);
  let listed;
  try {
    listed = await runChild("cpio", ["-t", "--quiet"], { input: archive });
  } catch (error) {
    return skip(`not compared with cpio: ${String(error)}`);
  }
  expect(listed.stderr).toBe("");
  expect(listed.stdout.toString()).toBe("dev\ndev/console\ninit\nmodules\nmodules/00-a.ko\nproc\nsys\n");
});
