/** Images that were built here: all that they are made of is among the kept content, and nowhere else. */
import { PyroError } from "../../base/error.js";
import { readRegular } from "../../base/regular-file.js";
import { digestOf } from "../digest.js";
import { hexOf } from "../images/blobs.js";
import { imageLimits } from "../images/documents.js";
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
