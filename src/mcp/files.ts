/** Files that a call brings along, and files that it wants to see afterwards. */
import * as z from "zod";
import { PyroError, toPyroError } from "../base/error.js";
import type { Json } from "../base/json.js";
import { readWhole, type OpenedVm } from "../core/index.js";
import { is } from "./arguments.js";

/** What fits into one message, together with its base64. */
const maxFilesBytes = 4 << 20;
const maxFiles = 100;
const maxReturnedBytes = 1 << 20;
const maxReturned = 32;
/** For a file that never ends, or whose reading hangs. */
const readDeadlineMs = 30_000;

const form = /^\/[^\0]{0,4094}$/;
const path = z.string().regex(form, { error: is("an absolute path in the guest") });
const name = z.string().regex(form, { error: "is an absolute path in the guest." });
const contentError = is('the content as text, or {"base64": "..."}');

export const fileArguments = {
  files: z
    .record(name, z.union([z.string(), z.strictObject({ base64: z.base64({ error: contentError }) })], { error: contentError }), { error: is("an object of absolute paths and contents") })
    .optional()
    .describe(`Files to write before the command runs: absolute path to content, as text or as {"base64": "..."}. Directories are made. At most ${maxFiles} files and ${maxFilesBytes >> 20} MiB in all.`),
  return_paths: z
    .array(path, { error: is("an array of absolute paths in the guest") })
    .max(maxReturned, { error: `has too many paths; at most ${maxReturned} are possible.` })
    .optional()
    .describe(`Absolute paths of files to read after the command, whatever its exit code: they come in returned_files. At most ${maxReturned} files, ${maxReturnedBytes >> 20} MiB each, ${maxFilesBytes >> 20} MiB in all.`),
};

export type Files = NonNullable<z.output<typeof fileArguments.files>>;

/** A guest that answers. */
type Guest = Pick<OpenedVm, "channel">;

/** Throws INVALID_ARGUMENT. Called before a VM is started for them. */
export function checkFiles(files: Files = {}): void {
  const all = Object.values(files);
  const bytes = all.reduce((sum, each) => sum + contentOf(each).length, 0);
  if (all.length > maxFiles) throw new PyroError("INVALID_ARGUMENT", `files has ${all.length} files; at most ${maxFiles} are possible.`, { hint: "Bring them as one tar file, and unpack it in the command." });
  if (bytes > maxFilesBytes) throw new PyroError("INVALID_ARGUMENT", `files has ${bytes} bytes; at most ${maxFilesBytes} are possible.`, { hint: "Let the command fetch or make what is large, or use `pyro cp` on a VM of vm_open." });
}

/** Throws what writing throws. */
export async function writeFiles({ channel }: Guest, files: Files, signal: AbortSignal): Promise<void> {
  for (const [to, content] of Object.entries(files)) await channel.writeFile(to, contentOf(content), { makeParents: true, signal });
}

/** One that can't be read is no failure of the command: its entry says why. */
export async function readFiles({ channel }: Guest, paths: readonly string[], signal: AbortSignal): Promise<Json[]> {
  const found: Json[] = [];
  let total = 0;
  for (const each of paths) {
    try {
      const room = Math.min(maxReturnedBytes, maxFilesBytes - total);
      const bytes = await readWhole(channel, each, room, AbortSignal.any([signal, AbortSignal.timeout(readDeadlineMs)]));
      total += bytes.length;
      const text = bytes.toString("utf8");
      found.push({ path: each, size_bytes: bytes.length, ...(Buffer.from(text).equals(bytes) ? { text } : { base64: bytes.toString("base64") }) });
    } catch (error) {
      if (signal.aborted) throw error;
      const { code, message } = toPyroError(error);
      found.push({ path: each, error: { code, message } });
    }
  }
  return found;
}

/** For the text of a result: what a client that shows nothing else has to know of them. */
export function describeFiles(files: readonly Json[]): string {
  return (files as { path: string; size_bytes?: number; text?: string; error?: { message: string } }[])
    .map((each) => (each.error !== undefined ? `--- ${each.path}: ${each.error.message} ---` : each.text !== undefined ? `--- ${each.path} ---\n${each.text.replace(/\n$/, "")}` : `--- ${each.path}: ${each.size_bytes} bytes that are no text ---`))
    .join("\n");
}

function contentOf(content: Files[string]): Buffer {
  return typeof content === "string" ? Buffer.from(content) : Buffer.from(content.base64, "base64");
}
