/** Whom the gateway trusts in the guest's stead: as this host does, and the authorities of a company that the user names. */
import { readFile } from "node:fs/promises";
import { rootCertificates } from "node:tls";
import { PyroError } from "../base/error.js";
import { settings } from "../base/settings.js";

/** `file` is of certificates (PEM), besides the system's. Throws DENIED. */
export async function trustedCertificates(file: string | undefined): Promise<string[]> {
  const system = await readFile(settings.systemCertificates(), "utf8").catch(() => "");
  const named = file === undefined ? "" : await readFile(file, "utf8").catch((cause: unknown) => {
    throw new PyroError("DENIED", `The certificates in ${file} can't be read.`, { hint: "It is a file of certificates (PEM).", cause });
  });
  return [...(system === "" ? rootCertificates : [system]), ...(named === "" ? [] : [named])];
}
