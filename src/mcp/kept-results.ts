/** Output that was too long for a result, kept for whoever wants more of it: of the last results of this process, within a bound. */
import { randomBytes } from "node:crypto";

/** Bytes kept of each stream, head and tail. */
export const keptBytes = 1 << 20;
const maxResults = 32;

export type StreamName = "stdout" | "stderr";
export type KeptOutput = Partial<Record<StreamName, string>>;

export class KeptResults {
  readonly #kept = new Map<string, KeptOutput>();

  /** Its id, which nobody can guess; the oldest is let go of. */
  keep(output: KeptOutput): string {
    const id = randomBytes(12).toString("base64url");
    this.#kept.set(id, output);
    if (this.#kept.size > maxResults) this.#kept.delete(this.#kept.keys().next().value!);
    return id;
  }

  get(id: string, stream: string): string | undefined {
    return stream === "stdout" || stream === "stderr" ? this.#kept.get(id)?.[stream] : undefined;
  }
}

export function resultUri(id: string, stream: StreamName): string {
  return `pyro://results/${id}/${stream}`;
}
