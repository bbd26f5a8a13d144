/** Images that were built here: all that they are made of is among the kept content, and nowhere else. */
import { PyroError } from "../../base/error.js";
import { readRegular } from "../../base/regular-file.js";
import { digestOf } from "../digest.js";
import { hexOf } from "../images/blobs.js";
import { imageLimits, parseDocument } from "../images/documents.js";
import type { ImageSource } from "../images/image.js";
import { places } from "../places.js";

/** `digest` is the manifest's. */
export function openBuilt(digest: string): ImageSource {
  const gone = (what: string) => new PyroError("NOT_FOUND", `The image ${digest} was built here, and of what it is made of, ${what} is not kept any more, or damaged.`, { hint: "Build it again." });
  const document = async (wanted: string) => {
    const data = await readRegular(places.blob(hexOf({ digest: wanted })), imageLimits.maxManifestBytes).catch(() => undefined);
    if (data === undefined || digestOf(data) !== wanted) throw gone(wanted);
    return data;
  };
  return {
    shown: "built here",
    root: () => document(digest),
    document: (descriptor) => document(descriptor.digest),
    // What is kept is not asked for.
    open: () => (descriptor) => Promise.reject(gone(descriptor.digest)),
    close: async () => {},
  };
}

/** All that a built image is made of, by its digests, the manifest's among them; undefined where that is gone. Not whether all of it is there. */
export async function contentOfBuilt(digest: string): Promise<string[] | undefined> {
  try {
    const document = parseDocument(await openBuilt(digest).root(undefined), "The manifest of what was built here");
    return document.kind === "manifest" ? [digest, document.config.digest, ...document.layers.map((layer) => layer.digest)] : undefined;
  } catch (error) {
    if (error instanceof PyroError) return undefined;
    throw error;
  }
}

/** What a name stands for that was built: its manifest's digest; undefined for all else. */
export function builtDigest(reference: string | undefined): string | undefined {
  return reference?.startsWith("built:") ? reference.slice("built:".length) : undefined;
}
