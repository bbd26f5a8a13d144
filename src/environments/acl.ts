/** POSIX ACLs: from the text that GNU tar and star write (`SCHILY.acl.*`) to the bytes of Linux's extended attribute. */
import { PyroError } from "../base/error.js";
import { harmlessLine } from "../base/harmless.js";

const maxAclEntries = 1024;
const tags: Record<string, { plain: number; named?: number }> = { user: { plain: 0x01, named: 0x02 }, group: { plain: 0x04, named: 0x08 }, mask: { plain: 0x10 }, other: { plain: 0x20 } };
/** ACL_UNDEFINED_ID. */
const noId = 0xffffffff;

/**
 * `struct posix_acl_xattr_header` and entries (Linux, include/uapi/linux/posix_acl_xattr.h, version 2), sorted as the kernel wants
 * them. Users and groups must be numbers, or carry one as a fourth field (star), or be `root`: there is nobody to ask for a name.
 * Throws ENVIRONMENT_INVALID with `path` in it.
 */
export function parseAcl(text: string, path: string): Buffer {
  const fail = (what: string) => new PyroError("ENVIRONMENT_INVALID", `The archive has an ACL on ${path} that can't be read: ${what}.`, { hint: "Make the archive with numeric owners, or without ACLs." });
  const parts = text.split(/[,\n]/).map((each) => each.replace(/#.*$/, "").trim()).filter((each) => each !== "");
  if (parts.length > maxAclEntries) throw fail(`it has more than ${maxAclEntries} entries (maxAclEntries)`);
  const entries = parts.map((part) => {
    const [kind = "", who = "", permissions = "", number] = part.split(":");
    // `mask::rwx` and `mask:rwx` are both in use.
    const access = (kind === "mask" || kind === "other") && permissions === "" ? who : permissions;
    const name = access === who ? "" : who;
    const tag = tags[kind] ?? tags[{ u: "user", g: "group", m: "mask", o: "other" }[kind] ?? ""];
    if (tag === undefined || !/^[r-][w-][x-]$/.test(access)) throw fail(`"${harmlessLine(part, 100)}"`);
    if (name === "") return { tag: tag.plain, permissions: bits(access), id: noId };
    const id = number !== undefined && number !== "" ? number : name === "root" ? "0" : name;
    if (tag.named === undefined || !/^[0-9]{1,10}$/.test(id) || Number(id) >= noId) throw fail(`"${harmlessLine(part, 100)}" names nobody by number`);
    return { tag: tag.named, permissions: bits(access), id: Number(id) };
  });
  entries.sort((a, b) => a.tag - b.tag || a.id - b.id);
  const out = Buffer.alloc(4 + entries.length * 8);
  out.writeUInt32LE(2, 0);
  entries.forEach((entry, index) => {
    out.writeUInt16LE(entry.tag, 4 + index * 8);
    out.writeUInt16LE(entry.permissions, 6 + index * 8);
    out.writeUInt32LE(entry.id, 8 + index * 8);
  });
  return out;
}

function bits(text: string): number {
  return (text[0] === "r" ? 4 : 0) | (text[1] === "w" ? 2 : 0) | (text[2] === "x" ? 1 : 0);
}
