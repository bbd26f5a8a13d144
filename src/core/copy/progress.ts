/** How far a copy has come. */
export interface CopyProgress {
  entries: number;
  contentBytes: number;
  /** What is being copied, relative to the copy's root; text, for people. */
  path: string;
}

/** Counts, and tells at most ten times a second. */
export class CopyCounter {
  entries = 0;
  contentBytes = 0;
  skipped = 0;
  #path: Buffer = Buffer.alloc(0);
  #toldAt = 0;
  readonly #onProgress: ((progress: CopyProgress) => void) | undefined;

  constructor(onProgress?: (progress: CopyProgress) => void) {
    this.#onProgress = onProgress;
  }

  entry(path: Buffer): void {
    this.entries++;
    this.#path = path;
    this.#tell();
  }

  bytes(count: number): void {
    this.contentBytes += count;
    this.#tell();
  }

  /** Devices and sockets can't be copied. */
  skip(): void {
    this.skipped++;
  }

  #tell(): void {
    if (this.#onProgress === undefined) return;
    const now = performance.now();
    if (now - this.#toldAt < 100) return;
    this.#toldAt = now;
    this.#onProgress({ entries: this.entries, contentBytes: this.contentBytes, path: this.#path.toString() });
  }
}
