/** Telling whoever waits what is going on, at least every second. */

import { log } from "../base/log.js";

export type PullPhase = "waiting" | "kernel" | "packages" | "layers" | "image" | "verify";

export interface PullProgress {
  environment: string;
  /** What is being done: waiting for another process, fetching the kernel, the packages, an image's layers, writing the image, checking it. */
  phase: PullPhase;
  /** A few words for people. */
  message: string;
  /** Milliseconds since this phase began. */
  elapsedMs: number;
  doneBytes?: number;
  totalBytes?: number;
  /** In the phase `layers`: the one that this event is about. */
  layer?: LayerProgress;
}

export interface LayerProgress {
  /** `sha256:…` of what is fetched. */
  digest: string;
  doneBytes: number;
  totalBytes: number;
}

export interface Reporter {
  /** Something new begins. */
  phase(phase: PullPhase, message: string): void;
  /** The same goes on. */
  bytes(doneBytes: number, totalBytes?: number): void;
  /** The same goes on with one of the image's layers. */
  layer(digest: string, doneBytes: number, totalBytes: number): void;
  /** No more events after this. */
  end(): void;
}

/** Calls `onProgress` at every new phase and message, and again every second while one lasts. */
export function startReporter(environment: string, onProgress: ((progress: PullProgress) => void) | undefined): Reporter {
  let current: Omit<PullProgress, "environment" | "elapsedMs" | "layer"> | undefined;
  const layers = new Map<string, { progress: LayerProgress; toldAt: number }>();
  let begin = Date.now();
  const tell = (layer?: LayerProgress) => {
    if (current === undefined) return;
    try {
      onProgress?.({ environment, ...current, elapsedMs: Date.now() - begin, ...(layer !== undefined && { layer: { ...layer } }) });
    } catch (error) {
      log("progress could not be told", { reason: String(error) }); // a listener's fault: out of a timer it would end the process
    }
  };
  const timer = setInterval(() => tell(), 1000);
  timer.unref();
  return {
    phase(phase, message) {
      if (current?.phase !== phase) begin = Date.now();
      current = { phase, message };
      tell();
    },
    bytes(doneBytes, totalBytes) {
      if (current === undefined) return;
      current.doneBytes = doneBytes; // told with the next tick: thousands of these come in a second
      if (totalBytes !== undefined) current.totalBytes = totalBytes;
    },
    layer(digest, doneBytes, totalBytes) {
      const known = layers.get(digest);
      const isNews = known === undefined || (doneBytes === totalBytes && known.progress.doneBytes !== totalBytes);
      const each = known ?? { progress: { digest, doneBytes, totalBytes }, toldAt: 0 };
      each.progress.doneBytes = doneBytes;
      layers.set(digest, each);
      if (current?.phase === "layers") current.doneBytes = [...layers.values()].reduce((sum, { progress }) => sum + progress.doneBytes, 0);
      if (!isNews && Date.now() - each.toldAt < layerEveryMs) return;
      each.toldAt = Date.now();
      tell(each.progress);
    },
    end() {
      clearInterval(timer);
      current = undefined;
    },
  };
}

/** How often a layer that is being fetched is told of. */
const layerEveryMs = 250;
