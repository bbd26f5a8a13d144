/** Images in a registry (OCI distribution specification 1.1; Docker's registry is the same but for the names of types). */
import { PyroError } from "../../base/error.js";
import { digestOf } from "../digest.js";
import type { OpenBlob } from "../images/blobs.js";
import { documentTypes, imageLimits } from "../images/documents.js";
import type { ImageSource } from "../images/image.js";
import { printReference, type RegistryReference } from "../images/reference.js";
import type { Reporter } from "../progress.js";
import { RegistryClient } from "../registry/client.js";
import { contentOf, drop, Http, impatience, patience, readBody, type Answer } from "../registry/http.js";

export async function openRegistry(reference: RegistryReference, { reporter, impatient }: { reporter: Reporter; impatient: boolean }): Promise<ImageSource> {
  const http = await Http.open(impatient ? impatience : patience);
  const shown = printReference(reference);
  reporter.phase("image", `asking ${reference.host}`);
  const client = new RegistryClient(http, reference, { onWait: (what) => reporter.phase("image", what), impatient });
  const manifest = async (which: string, abort: AbortSignal | undefined) => {
    const answer = await client.get(`manifests/${which}`, { accept: documentTypes.join(", ") }, abort);
    if (/^text\/html\b/i.test(answer.header("content-type") ?? "")) {
      await drop(answer.body);
      throw new PyroError("REGISTRY", `${answer.url.host} answered with a web page where ${shown} was asked for.`, { hint: `Look whether ${reference.host} is a registry, and whether a proxy or a page to log in at stands before it.` });
    }
    return { answer, data: await readBody(answer, imageLimits.maxManifestBytes, abort) };
  };
  return {
    shown,
    async root(abort) {
      const { answer, data } = await manifest(reference.digest ?? reference.tag!, abort);
      const said = reference.digest ?? answer.header("docker-content-digest");
      if (said !== undefined && said.startsWith("sha256:") && said !== digestOf(data)) throw new PyroError("REGISTRY", `The manifest that ${reference.host} sent for ${shown} is not ${said}.`);
      return data;
    },
    document: async ({ digest }, abort) => (await manifest(digest, abort)).data,
    open: (abort) => blobOpener(client, abort),
    close: () => http.close(),
  };
}

function blobOpener(client: RegistryClient, signal: AbortSignal | undefined): OpenBlob {
  return async ({ digest, sizeBytes }, offset) => {
    const get = (more: Record<string, string>) => client.get(`blobs/${digest}`, { "accept-encoding": "identity", ...more }, signal);
    const resumed = offset > 0 && offset < sizeBytes;
    let answer = await get(resumed ? { range: `bytes=${offset}-` } : {});
    if (resumed && answer.status !== 200 && startOf(answer) !== offset) {
      // Nothing else would ever be asked for while what came before is kept.
      await drop(answer.body);
      answer = await get({});
    }
    const from = answer.status === 200 ? 0 : startOf(answer);
    if (from === undefined || (from !== 0 && from !== offset)) {
      await drop(answer.body);
      throw new PyroError("REGISTRY", `${answer.url.host} sent another part of ${digest} than was asked for.`);
    }
    await checkLength(answer, digest, sizeBytes - from);
    return { offset: from, content: contentOf(answer, signal) };
  };
}

/** The first byte of the part that was sent; undefined where that is not said. */
function startOf({ status, header }: Answer): number | undefined {
  const from = status === 206 ? /^bytes ([0-9]{1,15})-/.exec(header("content-range") ?? "")?.[1] : undefined;
  return from === undefined ? undefined : Number(from);
}

/** Said before anything is read, so that it is refused whatever becomes of the connection. Less than it should be is a break, and seen at its end. */
async function checkLength(answer: Answer, digest: string, bytes: number): Promise<void> {
  const said = Number(answer.header("content-length") ?? bytes);
  if (said <= bytes) return;
  await drop(answer.body);
  throw new PyroError("REGISTRY", `${answer.url.host} has ${said} bytes for ${digest}, more than the ${bytes} bytes that its image says it has.`);
}
