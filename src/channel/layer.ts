/** What was changed in a guest, as a layer. protocol/PROTOCOL.md, "Layers". */
import type { Readable } from "node:stream";
import { checkSignal } from "../base/deadline.js";
import { violation } from "./codec.js";
import { outputOf } from "./files.js";
import { u8 } from "./message.js";
import type { Mux } from "./mux.js";

export interface GuestLayer {
  /** A tar stream without limits of its own, from a guest that can't be trusted. Breaks with INVALID_STATE, PROTOCOL, CANCELLED and what ends the channel; destroying it stops the guest. */
  readonly content: Readable;
  /** After the end of the content: sockets and attributes that a layer has no place for. */
  skipped(): Promise<number>;
}

export function readLayer(mux: Mux, { signal }: { signal?: AbortSignal } = {}): GuestLayer {
  checkSignal(signal);
  const stream = outputOf(mux, [["KIND", u8(23)]], "hand out what was changed", signal, ["BYTES_1", "ENTRIES", "SKIPPED"]);
  return {
    content: stream.outputs[0]!.readable,
    async skipped() {
      const result = await stream.result;
      if (!("fields" in result)) throw violation("a whole layer and a failure");
      return Number(result.fields.get("SKIPPED")!.readBigUInt64LE());
    },
  };
}
