/** Runs a decoder of hostile bytes on what it was made for, spoiled in every way, for as long as is wanted. */
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { Session } from "node:inspector/promises";
import { join } from "node:path";
import { PyroError } from "../../src/base/error.js";

export type Random = (below: number) => number;

export interface Target {
  name: string;
  /** The sources that are tried, for the coverage; paths below `src/`. */
  sources: readonly string[];
  /** What is right, or nearly. */
  seeds: readonly Buffer[];
  /** Pieces that mean something to the decoder. */
  words?: readonly (string | Buffer)[];
  mutate?: (seed: Buffer, random: Random) => Buffer;
  /** Throws a PyroError for what is refused; whatever else is thrown is a fault. May look at what came out. */
  run(bytes: Buffer, random: Random): unknown;
}

export interface Fuzzed {
  executions: number;
  taken: number;
  refused: number;
  slowestMs: number;
}

const corpusDirectory = join(import.meta.dirname, "corpus");

/** Found by fuzzing once, and tried first ever since; plus the seeds. */
export function corpusOf(target: Target): Buffer[] {
  const directory = join(corpusDirectory, target.name);
  const found = existsSync(directory) ? readdirSync(directory).toSorted().map((file) => readFileSync(join(directory, file))) : [];
  return [...found, ...target.seeds];
}

/** Throws at the first fault, its bytes kept in the corpus when `keep`. */
export async function fuzz(target: Target, options: { ms: number; seed: number; keep?: boolean }): Promise<Fuzzed> {
  const random = randomOf(options.seed);
  const corpus = corpusOf(target);
  const end = performance.now() + options.ms;
  const fuzzed: Fuzzed = { executions: 0, taken: 0, refused: 0, slowestMs: 0 };
  for (let round = 0; round < corpus.length || performance.now() < end; round++) {
    const seed = corpus[round % corpus.length]!;
    // As it is, to begin with.
    const bytes = round < corpus.length ? seed : (target.mutate ?? mutate.bind(undefined, target, corpus))(seed, random);
    const begin = performance.now();
    try {
      await target.run(bytes, random);
      fuzzed.taken++;
    } catch (error) {
      if (!(error instanceof PyroError) || error.code === "INTERNAL") throw new Error(`${target.name}: ${describe(bytes)}${options.keep ? ` (kept as ${keep(target, bytes)})` : ""}`, { cause: error });
      fuzzed.refused++;
    }
    fuzzed.executions++;
    fuzzed.slowestMs = Math.max(fuzzed.slowestMs, performance.now() - begin);
  }
  return fuzzed;
}

function describe(bytes: Buffer): string {
  return bytes.length > 2000 ? `${bytes.length} bytes` : bytes.toString("hex");
}

function keep(target: Target, bytes: Buffer): string {
  const directory = join(corpusDirectory, target.name);
  mkdirSync(directory, { recursive: true });
  const file = join(directory, createHash("sha256").update(bytes).digest("hex").slice(0, 16));
  writeFileSync(file, bytes);
  return file;
}

const bounds = [0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0xffff, 0x7fff_ffff, 0xffff_ffff];

function mutate({ words = [] }: Target, corpus: readonly Buffer[], seed: Buffer, random: Random): Buffer {
  let bytes: Buffer = Buffer.from(seed);
  for (let changes = 1 + random(4); changes > 0; changes--) {
    const at = random(bytes.length + 1);
    switch (random(9)) {
      case 0:
        if (at < bytes.length) bytes[at] = random(256);
        break;
      case 1:
        if (at < bytes.length) bytes[at] = bytes[at]! ^ (1 << random(8));
        break;
      case 2:
        bytes = bytes.subarray(0, at);
        break;
      case 3: // a piece away
        bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + 1 + random(16))]);
        break;
      case 4: // a piece twice
        bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(random(at + 1))]);
        break;
      case 5: { // another one's end
        const other = corpus[random(corpus.length)]!;
        bytes = Buffer.concat([bytes.subarray(0, at), other.subarray(random(other.length + 1))]);
        break;
      }
      case 6: { // a number at its bound
        const size = [1, 2, 4][random(3)]!;
        const value = Buffer.alloc(4);
        value.writeUInt32LE(bounds[random(bounds.length)]!);
        if (random(2) === 0) value.reverse();
        value.copy(bytes, Math.max(0, Math.min(at, bytes.length - size)), 0, size);
        break;
      }
      default: {
        const word = words.length === 0 ? Buffer.of(random(256)) : Buffer.from(words[random(words.length)]!);
        bytes = Buffer.concat([bytes.subarray(0, at), word, bytes.subarray(at + random(2) * word.length)]);
      }
    }
    if (bytes.length > 1 << 20) bytes = bytes.subarray(0, 1 << 20);
  }
  return bytes;
}

function randomOf(seed: number): Random {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let value = Math.imul(state ^ (state >>> 15), 1 | state);
    value = (value + Math.imul(value ^ (value >>> 7), 61 | value)) ^ value;
    return Math.floor((((value ^ (value >>> 14)) >>> 0) / 4294967296) * below);
  };
}

interface ScriptCoverage {
  url: string;
  functions: { functionName: string; ranges: { startOffset: number; endOffset: number; count: number }[] }[];
}

/** Which part of a source ran. Has to be begun before the sources are loaded: what was compiled before is not counted in blocks. */
export class Coverage {
  readonly #session = new Session();
  readonly #all = new Map<string, ScriptCoverage["functions"]>();

  async begin(): Promise<void> {
    this.#session.connect();
    await this.#session.post("Profiler.enable");
    await this.#session.post("Profiler.startPreciseCoverage", { callCount: true, detailed: true });
  }

  /** When all is loaded: what there is to be run. */
  async loaded(): Promise<void> {
    for (const { url, functions } of await this.#take()) this.#all.set(url, functions);
  }

  /** In percent of the characters inside functions, since it was last asked for. */
  async of(sources: readonly string[]): Promise<Map<string, number>> {
    const ran = new Map((await this.#take()).map(({ url, functions }) => [url, functions]));
    const percent = new Map<string, number>();
    for (const [url, all] of this.#all) {
      const source = sources.find((each) => url.replace(/\?.*$/, "").endsWith(`/src/${each}`));
      if (source !== undefined) percent.set(source, percentOf(all, ran.get(url) ?? []));
    }
    return percent;
  }

  end(): void {
    this.#session.disconnect();
  }

  async #take(): Promise<ScriptCoverage[]> {
    return (await this.#session.post("Profiler.takePreciseCoverage")).result;
  }
}

/** Inner ranges come later, and overrule. The outermost ones are the module itself, whose code ran when it was loaded. */
function percentOf(all: ScriptCoverage["functions"], ran: ScriptCoverage["functions"]): number {
  const length = Math.max(0, ...all.map(({ ranges }) => ranges[0]!.endOffset));
  const marks = new Int8Array(length).fill(-1);
  const inner = (each: { ranges: { startOffset: number; endOffset: number }[] }) => each.ranges[0]!.endOffset - each.ranges[0]!.startOffset < length * 0.9;
  for (const { ranges } of all.filter(inner)) marks.fill(0, ranges[0]!.startOffset, ranges[0]!.endOffset);
  for (const { ranges } of ran.filter(inner)) for (const { startOffset, endOffset, count } of ranges) marks.fill(count > 0 ? 1 : 0, startOffset, endOffset);
  const inFunctions = marks.filter((each) => each >= 0).length;
  return inFunctions === 0 ? 100 : Math.round((100 * marks.filter((each) => each === 1).length) / inFunctions);
}
