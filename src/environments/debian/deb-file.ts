/** A package's files as a tar stream: by dpkg-deb, or where there is none out of the archive that a .deb is (deb(5), ar(5)). */
import { createReadStream, createWriteStream } from "node:fs";
import { open } from "node:fs/promises";
import { pipeline } from "node:stream/promises";
import { findProgram } from "../../base/child.js";
import { PyroError } from "../../base/error.js";

/** The program that writes the tar stream to its standard output, with its arguments. What has to be kept for it is beside `deb`. Throws ENVIRONMENT_INVALID, UNSUPPORTED. */
export async function tarOfPackage(deb: string, signal: AbortSignal | undefined): Promise<{ program: string; args: string[] }> {
  const dpkg = await findProgram("dpkg-deb").catch(() => undefined);
  if (dpkg !== undefined) return { program: dpkg, args: ["--fsys-tarfile", deb] };
  const { offset, sizeBytes } = await findData(deb);
  const data = `${deb}.data.tar.xz`;
  await pipeline(createReadStream(deb, { start: offset, end: offset + sizeBytes - 1 }), createWriteStream(data, { mode: 0o600 }), { ...(signal && { signal }) });
  return { program: "xz", args: ["--decompress", "--stdout", "--memlimit-decompress=256MiB", data] };
}

const magic = "!<arch>\n";
const headerBytes = 60;
/** debian-binary, control.tar and data.tar, and what newer formats may put between them. */
const maxMembers = 16;

async function findData(deb: string): Promise<{ offset: number; sizeBytes: number }> {
  const fail = (what: string) => new PyroError("ENVIRONMENT_INVALID", `${deb} is no package: ${what}.`);
  const file = await open(deb);
  try {
    const { size } = await file.stat();
    const read = async (at: number, bytes: number) => (await file.read(Buffer.alloc(bytes), 0, bytes, at)).buffer.toString("latin1");
    if ((await read(0, magic.length)) !== magic) throw fail("it is no archive");
    let at = magic.length;
    for (let members = 0; members < maxMembers && at + headerBytes <= size; members++) {
      const header = await read(at, headerBytes);
      const [, length] = /^([0-9]{1,10}) *$/.exec(header.slice(48, 58)) ?? [];
      if (length === undefined || header.slice(58) !== "`\n") throw fail("a header in it is none");
      const [name, sizeBytes] = [header.slice(0, 16).trim().replace(/\/$/, ""), Number(length)];
      if (at + headerBytes + sizeBytes > size) throw fail("it is cut short");
      if (name === "data.tar.xz" && sizeBytes > 0) return { offset: at + headerBytes, sizeBytes };
      if (name.startsWith("data.tar")) throw new PyroError("UNSUPPORTED", `${deb} is compressed as ${name}.`, { hint: "Install dpkg, which unpacks it." });
      at += headerBytes + sizeBytes + (sizeBytes & 1);
    }
    throw fail("it has no files");
  } finally {
    await file.close();
  }
}
