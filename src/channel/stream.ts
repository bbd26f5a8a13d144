/** One request and all that belongs to it: what the guest may send for it, in which order, and its result. */
import type { PyroError } from "../base/error.js";
import { FrameType, violation, type Frame } from "./codec.js";
import { hasField, harmlessText, parseMessage, u16, u32, type Fields, type TagName } from "./message.js";
import { Input } from "./input.js";
import { Output } from "./output.js";

export interface StreamShape {
  /** What RESULT carries when the request succeeded. */
  result: readonly TagName[];
  /** Fields of RESULT that need not be there; `checkFields` knows more. */
  resultOptional?: readonly TagName[];
  /** Throws PROTOCOL where the fields contradict each other. */
  checkFields?: (fields: Fields) => void;
  /** What the outputs break with, for a result that is a failure to their reader. */
  outputError?: (result: StreamResult) => PyroError | undefined;
  /** STARTED comes first. */
  starts?: true;
  outputs?: 0 | 1 | 2;
  input?: boolean;
  /** See `OutputOptions`. */
  outputEndsAtEnd?: boolean;
  onOutputAbandoned?: () => void;
}

export interface StreamPort {
  send(type: number, payload: Uint8Array): void;
  sendData(payload: Buffer, done?: () => void): void;
  readyFor(waiter: Input | Output): boolean;
}

export interface Failure {
  /** Linux errno. */
  errno: number;
  /** What failed: `exec`, `chdir`, `open`, … */
  stage: string;
  /** The guest's own words, made harmless for a terminal. */
  message: string;
}

export type StreamResult = { fields: Fields } | { failure: Failure };

const EMPTY = Buffer.alloc(0);

export class GuestStream {
  readonly started: Promise<number>;
  readonly result: Promise<StreamResult>;
  readonly outputs: readonly Output[];
  readonly input: Input | undefined;
  readonly #port: StreamPort;
  readonly #shape: StreamShape;
  #settleStarted!: { resolve: (pid: number) => void; reject: (error: PyroError) => void };
  #settleResult!: { resolve: (result: StreamResult) => void; reject: (error: PyroError) => void };
  #isStarted = false;
  #isOver = false;
  #isCancelled = false;

  constructor(port: StreamPort, shape: StreamShape) {
    this.#port = port;
    this.#shape = shape;
    this.started = new Promise((resolve, reject) => (this.#settleStarted = { resolve, reject }));
    this.result = new Promise((resolve, reject) => (this.#settleResult = { resolve, reject }));
    // Nobody has to wait for either.
    this.started.catch(() => {});
    this.result.catch(() => {});
    this.outputs = [FrameType.CREDIT_1, FrameType.CREDIT_2].slice(0, shape.outputs ?? 0).map(
      (credit, index) =>
        new Output({
          name: `DATA_${index + 1}`,
          giveCredit: (bytes) => this.#send(credit, u32(bytes)),
          readyFor: port.readyFor,
          endsAtEnd: shape.outputEndsAtEnd ?? false,
          ...(shape.onOutputAbandoned === undefined ? {} : { onAbandoned: shape.onOutputAbandoned }),
        }),
    );
    this.input = shape.input
      ? new Input({ readyFor: port.readyFor, sendData: port.sendData, sendEnd: () => this.#send(FrameType.END_0, EMPTY) })
      : undefined;
  }

  signal(signal: number, scope: number): void {
    this.#send(FrameType.SIGNAL, Buffer.of(signal, scope));
  }

  resize(rows: number, columns: number): void {
    this.#send(FrameType.RESIZE, Buffer.concat([u16(rows), u16(columns)]));
  }

  /** The result still comes. */
  cancel(): void {
    if (this.#isCancelled) return;
    this.#isCancelled = true;
    this.#send(FrameType.CANCEL, EMPTY);
    this.input?.close();
  }

  /** Any frame but RESULT. Throws PROTOCOL. */
  receive({ type, payload }: Frame): void {
    if (type === FrameType.STARTED) return this.#start(payload.readUInt32LE());
    if (type === FrameType.CREDIT_0) {
      if (this.input === undefined) throw violation("CREDIT_0 for a stream without DATA_0");
      return this.input.addCredit(payload.readUInt32LE());
    }
    const output = this.outputs[type === FrameType.DATA_1 || type === FrameType.END_1 ? 0 : 1];
    if (output === undefined) throw violation(`a frame of type 0x${type.toString(16)} for a request that has no such output`);
    if (this.#shape.starts && !this.#isStarted) throw violation("output before STARTED");
    if (type === FrameType.DATA_1 || type === FrameType.DATA_2) output.take(payload);
    else output.end();
  }

  /** Throws PROTOCOL; else gives what ends the stream. */
  checkResult(payload: Buffer): () => void {
    const result = this.#parseResult(payload);
    this.#checkEnds("failure" in result);
    return () => {
      this.#isOver = true;
      this.input?.close();
      const error = this.#shape.outputError?.(result);
      for (const output of this.outputs) {
        if (error === undefined) output.finish();
        else output.fail(error);
      }
      if (!this.#isStarted) this.#settleStarted.reject(violation("a result for what was never started"));
      this.#settleResult.resolve(result);
    };
  }

  /** The connection is over. */
  fail(error: PyroError): void {
    this.#isOver = true;
    this.#settleStarted.reject(error);
    this.#settleResult.reject(error);
    this.input?.close(error);
    for (const output of this.outputs) output.fail(error);
  }

  #start(pid: number): void {
    if (!this.#shape.starts) throw violation("STARTED for a request that starts nothing");
    if (this.#isStarted) throw violation("STARTED twice");
    this.#isStarted = true;
    this.#settleStarted.resolve(pid);
  }

  #parseResult(payload: Buffer): StreamResult {
    if (!hasField(payload, "ERRNO")) {
      const fields = parseMessage(payload, "RESULT", this.#shape.result, this.#shape.resultOptional);
      this.#shape.checkFields?.(fields);
      this.#checkTotal(fields, "BYTES_1", 0);
      this.#checkTotal(fields, "BYTES_2", 1);
      return { fields };
    }
    const fields = parseMessage(payload, "RESULT", ["ERRNO", "STAGE"], ["MESSAGE"]);
    const errno = fields.get("ERRNO")!.readUInt32LE();
    if (errno < 1 || errno > 4095) throw violation(`RESULT with the errno ${errno}, outside 1 to 4095`);
    const stage = harmlessText(fields.get("STAGE")!);
    const message = harmlessText(fields.get("MESSAGE") ?? EMPTY);
    return { failure: { errno, stage, message: message === "" ? `${stage}: errno ${errno}` : message } };
  }

  #checkTotal(fields: Fields, name: "BYTES_1" | "BYTES_2", index: number): void {
    const total = fields.get(name)?.readBigUInt64LE();
    const received = this.outputs[index]?.receivedBytes ?? 0;
    if (total !== undefined && total !== BigInt(received)) throw violation(`RESULT with ${name} ${total} after ${received} bytes`);
  }

  /** A request that failed before it began has neither STARTED nor END; every other one has all of them. */
  #checkEnds(failed: boolean): void {
    const untouched = !this.#isStarted && this.outputs.every((output) => !output.ended && output.receivedBytes === 0);
    if (failed && untouched) return;
    if (this.#shape.starts && !this.#isStarted) throw violation("RESULT before STARTED");
    if (!failed && !this.#shape.starts && this.input?.ended === false) throw violation("success for a file that it has not got to the end of");
    if (!this.outputs.every((output) => output.ended)) throw violation("RESULT before END");
  }

  #send(type: number, payload: Uint8Array): void {
    if (!this.#isOver) this.#port.send(type, payload);
  }
}

