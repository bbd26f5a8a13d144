/** Who we are to a registry: what `docker login` left (docker's config.json, and the protocol of docker-credential-helpers). */
import { join } from "node:path";
import { findProgram, runChild } from "../../base/child.js";
import { PyroError } from "../../base/error.js";
import { harmlessLine } from "../../base/harmless.js";
import { log } from "../../base/log.js";
import { homeDirectory } from "../../base/paths.js";
import { settings } from "../../base/settings.js";
import { Fields, parseRecord, readRecord } from "../record.js";

export type Credentials = { kind: "password"; user: string; password: string } | { kind: "identity"; token: string } | { kind: "registry"; token: string };

const maxConfigBytes = 1 << 20;
const maxSecretLength = 65_536;

export interface FoundCredentials {
  /** What the user has; undefined for nobody in particular. */
  credentials?: Credentials | undefined;
  /** Why the program that keeps passwords could not be asked. Most images are everybody's, so that is no reason not to ask for one. */
  trouble?: PyroError;
}

/** For `host`, as in a reference. Throws ENVIRONMENT_INVALID for a damaged file. */
export async function findCredentials(host: string): Promise<FoundCredentials> {
  const directory = settings.dockerConfigDirectory() ?? join(homeDirectory(), ".docker");
  const config = await readRecord(join(directory, "config.json"), maxConfigBytes);
  if (config === undefined) return {};
  const helpers = config.isSet("credHelpers") ? config.stringMap("credHelpers", 1000, 255) : {};
  const keys = keysOf(host);
  const helper = keys.map((key) => helpers[key]).find((each) => each !== undefined) ?? (config.isSet("credsStore") ? config.string("credsStore", 255) : "");
  const asked = helper === "" ? {} : await askForAny(helper, keys);
  if (asked.credentials !== undefined) return asked;
  const auths = config.isSet("auths") ? config.object("auths") : undefined;
  const kept = keys.map((key) => (auths?.isSet(key) ? readAuth(auths.object(key)) : undefined)).find((each) => each !== undefined);
  return kept === undefined ? asked : { credentials: kept };
}

async function askForAny(helper: string, keys: readonly string[]): Promise<FoundCredentials> {
  try {
    for (const key of keys) {
      const credentials = await askHelper(helper, key);
      if (credentials !== undefined) return { credentials };
    }
    return {};
  } catch (error) {
    if (error instanceof PyroError) return { trouble: error };
    throw error;
  }
}

/** Under which names it may be kept: the registry's, also as an address. Docker Hub has one of its own. */
function keysOf(host: string): string[] {
  if (host === "docker.io") return ["https://index.docker.io/v1/", "index.docker.io", "docker.io"];
  return [host, `https://${host}`, `https://${host}/`, `http://${host}`, `https://${host}/v1/`, `https://${host}/v2/`];
}

function readAuth(auth: Fields): Credentials | undefined {
  const text = (name: string) => (auth.isSet(name) ? auth.string(name, maxSecretLength) : "");
  if (text("identitytoken") !== "") return { kind: "identity", token: text("identitytoken") };
  if (text("registrytoken") !== "") return { kind: "registry", token: text("registrytoken") };
  if (text("auth") !== "") {
    const decoded = Buffer.from(text("auth"), "base64").toString("utf8").replace(/\0+$/, "");
    const colon = decoded.indexOf(":");
    return colon === -1 ? undefined : { kind: "password", user: decoded.slice(0, colon), password: decoded.slice(colon + 1) };
  }
  return text("username") === "" ? undefined : { kind: "password", user: text("username"), password: text("password") };
}

/** The helper is told the registry's address, and answers with a secret, or that it has none. */
async function askHelper(name: string, address: string): Promise<Credentials | undefined> {
  if (!/^[A-Za-z0-9._-]{1,100}$/.test(name)) throw new PyroError("ENVIRONMENT_INVALID", `"${harmlessLine(name, 100)}" in Docker's config.json is no name of a credential helper.`);
  const program = await findProgram(`docker-credential-${name}`).catch((cause: unknown) => {
    throw new PyroError("HOST_MISSING", `Docker's config.json says that passwords are kept by docker-credential-${name}, which is not installed.`, { hint: "Install it, or take the helper out of config.json and log in again.", cause });
  });
  const { code, stdout, stderr } = await runChild(program, ["get"], { input: address, env: settings.keyRing(), timeoutMs: 30_000, maxOutputBytes: maxSecretLength * 2 });
  if (code !== 0) {
    const said = `${stdout.toString("utf8")} ${stderr}`.trim();
    if (/credentials not found|not logged in|no credentials/i.test(said)) return undefined;
    log("credential helper failed", { program, address });
    throw new PyroError("DENIED", `docker-credential-${name} could not be asked for the password of ${address}: ${harmlessLine(said, 300).replace(/\.?$/, ".")}`, { hint: "Mend that, or take the helper out of Docker's config.json and log in again." });
  }
  const answer = parseRecord(stdout, `What docker-credential-${name} said`);
  const text = (name: string, maxLength: number) => (answer.isSet(name) ? answer.string(name, maxLength) : "");
  const [user, secret] = [text("Username", 1024), text("Secret", maxSecretLength)];
  if (secret === "") return undefined;
  return user === "<token>" ? { kind: "identity", token: secret } : { kind: "password", user, password: secret };
}
