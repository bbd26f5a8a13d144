/** Packages files of Debian's archive: paragraphs, of which few are wanted. */
import { PyroError } from "../../base/error.js";

export interface PackageFacts {
  name: string;
  version: string;
  depends: string;
  /** Below the mirror's address. */
  path: string;
  sizeBytes: number;
  sha256: string;
}

export const packagesLimits = { maxParagraphBytes: 1 << 20, maxPackagesBytes: 2 ** 29, maxPackageBytes: 2 ** 30, maxWanted: 10_000 } as const;

/** Those whose names begin with `prefix`. Throws ENVIRONMENT_INVALID for what can't be, as a signature has vouched for it. */
export async function readPackages(text: AsyncIterable<Uint8Array>, prefix: string, shown: string): Promise<PackageFacts[]> {
  const fail = (what: string) => new PyroError("ENVIRONMENT_INVALID", `${shown} ${what}.`);
  const found: PackageFacts[] = [];
  const begin = `Package: ${prefix}`;
  const take = (paragraph: string) => {
    if (!paragraph.startsWith(begin)) return;
    if (found.length === packagesLimits.maxWanted) throw fail(`names more than ${packagesLimits.maxWanted} packages (maxWanted)`);
    found.push(parseParagraph(paragraph, fail));
  };
  let rest = "";
  let total = 0;
  for await (const chunk of text) {
    total += chunk.length;
    if (total > packagesLimits.maxPackagesBytes) throw fail(`has more than ${packagesLimits.maxPackagesBytes} bytes (maxPackagesBytes)`);
    const paragraphs = (rest + Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength).toString("latin1")).split("\n\n");
    rest = paragraphs.pop()!;
    if (rest.length > packagesLimits.maxParagraphBytes) throw fail(`has a paragraph of more than ${packagesLimits.maxParagraphBytes} bytes (maxParagraphBytes)`);
    for (const each of paragraphs) take(each);
  }
  take(rest);
  return found;
}

function parseParagraph(text: string, fail: (what: string) => PyroError): PackageFacts {
  const field = (name: string, pattern: RegExp) => {
    const value = new RegExp(`^${name}: (.*)$`, "m").exec(text)?.[1]?.trim() ?? "";
    if (!pattern.test(value)) throw fail(`has a package whose ${name} is none`);
    return value;
  };
  const path = field("Filename", /^pool\/[A-Za-z0-9.+~_/-]{1,400}\.deb$/);
  if (path.split("/").some((part) => part === "" || part === "." || part === "..")) throw fail("has a package whose Filename leads elsewhere");
  const sizeBytes = Number(field("Size", /^[0-9]{1,12}$/));
  if (sizeBytes > packagesLimits.maxPackageBytes) throw fail(`has a package of ${sizeBytes} bytes, over the limit maxPackageBytes (${packagesLimits.maxPackageBytes})`);
  return { name: field("Package", /^[a-z0-9][a-z0-9.+-]{0,199}$/), version: field("Version", /^[A-Za-z0-9.+~:-]{1,200}$/), depends: /^Depends: (.*)$/m.exec(text)?.[1] ?? "", path, sizeBytes, sha256: field("SHA256", /^[0-9a-f]{64}$/) };
}
