/** Whether Debian signed it: an InRelease file (a cleartext signature, RFC 4880, 7) by gpgv, or by the package openpgp where there is no gpgv. */
import { readFile, rm, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { findProgram, runChild } from "../../base/child.js";
import { PyroError } from "../../base/error.js";
import { harmlessLine } from "../../base/harmless.js";
import { checkKeyring, keyring } from "./keyring.js";

/** The text that was signed. Throws REGISTRY for what no key of the keyring has signed, HOST_MISSING where nothing can check it. `shown` is where it came from. */
export async function signedText(data: Buffer, shown: string, directory: string, signal: AbortSignal | undefined): Promise<string> {
  const text = data.toString("latin1");
  if (!isOneMessage(text)) throw refused(shown, "it is no signed file");
  await checkKeyring();
  const gpgv = await findProgram("gpgv").catch(() => undefined);
  return gpgv === undefined ? byLibrary(data, keyring(), shown) : byGpgv(gpgv, data, keyring(), shown, directory, signal);
}

/** One message, and nothing before and behind it: who checks several may check one and read another. */
function isOneMessage(text: string): boolean {
  const count = (line: string) => text.split(line).length - 1;
  const [begin, signature, end] = ["-----BEGIN PGP SIGNED MESSAGE-----", "-----BEGIN PGP SIGNATURE-----", "-----END PGP SIGNATURE-----"] as const;
  return text.startsWith(`${begin}\n`) && text.trimEnd().endsWith(`\n${end}`) && [begin, signature, end].every((each) => count(each) === 1);
}

async function byGpgv(gpgv: string, data: Buffer, keys: string, shown: string, directory: string, signal: AbortSignal | undefined): Promise<string> {
  const [signed, text] = [join(directory, "signed"), join(directory, "text")];
  await writeFile(signed, data, { flag: "w", mode: 0o600 });
  await rm(text, { force: true }); // gpgv makes it, or there is none
  const args = ["--status-fd", "1", "--keyring", resolve(keys), "--output", text, signed];
  const { stdout, stderr } = await runChild(gpgv, args, { env: { GNUPGHOME: directory }, timeoutMs: 60_000, ...(signal && { signal }) });
  const status = stdout.toString("latin1").split("\n").map((line) => /^\[GNUPG:\] ([A-Z_]+)/.exec(line)?.[1]);
  const count = (word: string) => status.filter((each) => each === word).length;
  // A signature by a key that is not known yet, or expired, is none; one that is wrong means that somebody changed it.
  if (count("GOODSIG") === 0 || count("VALIDSIG") === 0 || count("BADSIG") > 0 || count("PLAINTEXT") !== 1) {
    const why = count("BADSIG") > 0 ? "its signature is wrong" : count("NO_PUBKEY") > 0 ? "it is signed by keys that are not Debian's" : count("EXPKEYSIG") > 0 ? "its keys have expired" : harmlessLine(stderr.split("\n")[0] ?? "", 200);
    throw refused(shown, why);
  }
  return (await readFile(text)).toString("utf8");
}

/** Loaded only here, and not brought along: nearly every host has gpgv. */
async function byLibrary(data: Buffer, keys: string, shown: string): Promise<string> {
  const openpgp = await import("openpgp").catch((cause: unknown) => {
    throw new PyroError("HOST_MISSING", "gpgv, which checks Debian's signatures, is not installed.", { hint: "Install GnuPG (its package is gpgv, gnupg or gnupg2), or beside pyro the npm package openpgp.", cause });
  });
  const verificationKeys = await openpgp.readKeys({ binaryKeys: await readFile(keys) });
  const message = await openpgp.readCleartextMessage({ cleartextMessage: data.toString("utf8") }).catch((cause: unknown) => {
    throw refused(shown, "it is no signed file", cause);
  });
  const { data: text, signatures } = await openpgp.verify({ message, verificationKeys });
  const outcomes = await Promise.allSettled(signatures.map((each) => each.verified));
  const reasons = outcomes.flatMap((each) => (each.status === "rejected" ? [String((each.reason as Error).message)] : []));
  if (outcomes.length === reasons.length || reasons.some((each) => /digest did not match|verification failed/i.test(each))) throw refused(shown, harmlessLine(reasons[0] ?? "it has no signature", 200));
  return text;
}

function refused(shown: string, why: string, cause?: unknown): PyroError {
  return new PyroError("REGISTRY", `${shown} does not carry Debian's signature: ${why}.`, {
    hint: "Nothing of it was used. Check PYRO_DEBIAN_MIRROR, PYRO_DEBIAN_KEYRING and the proxy settings, and that the keyring and this host's clock are right.",
    cause,
  });
}
