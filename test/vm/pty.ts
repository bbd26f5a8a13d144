// A command in a real pseudo-terminal, and somebody who types and reads: waits for text, never for time.
import { spawn, type ChildProcess } from "node:child_process";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";

const driver = new URL("terminal-driver.py", import.meta.url).pathname;
/** For an emulated guest on a busy machine; what is waited for comes or never does. */
const patienceMs = 180_000;

export interface PtyOptions {
  env?: Record<string, string>;
  rows?: number;
  columns?: number;
}

export class Pty {
  /** The terminal's modes before the command has begun. */
  readonly before: Promise<string>;
  /** All bytes that came, one character each. */
  output = "";
  readonly exit: Promise<number>;
  readonly #driver: ChildProcess;
  #seen = 0;
  #pid: number | undefined;
  #changed = () => {};
  #gone = false;
  #modes: ((modes: string) => void)[] = [];
  #exit!: (status: number) => void;

  constructor(command: readonly string[], { env = {}, rows = 24, columns = 80 }: PtyOptions = {}) {
    this.exit = new Promise((resolve) => (this.#exit = resolve));
    this.before = new Promise((resolve) => this.#modes.push(resolve)); // said unasked
    this.#driver = spawn("python3", [driver, String(rows), String(columns), ...command], { stdio: ["pipe", "pipe", "inherit"], env: { ...process.env, TERM: "xterm-256color", ...env } });
    this.#driver.stdin!.on("error", () => {});
    this.#driver.once("close", () => {
      this.#gone = true;
      this.#changed();
    });
    createInterface({ input: this.#driver.stdout! }).on("line", (line) => this.#take(JSON.parse(line) as Message));
  }

  /** The command's process id. */
  async pid(): Promise<number> {
    await this.#until(() => this.#pid !== undefined, "a process");
    return this.#pid!;
  }

  type(text: string): void {
    this.#say({ type: Buffer.from(text).toString("base64") });
  }

  resize(rows: number, columns: number): void {
    this.#say({ resize: [rows, columns] });
  }

  /** The terminal's modes (termios(3)), as text to compare. */
  modes(): Promise<string> {
    return new Promise((resolve) => {
      this.#modes.push(resolve);
      this.#say({ modes: true });
    });
  }

  /** Waits for what comes after what was last waited for; returns the text up to its end. */
  async until(wanted: string | RegExp): Promise<string> {
    const find = () => {
      const rest = this.output.slice(this.#seen);
      if (typeof wanted === "string") return rest.includes(wanted) ? rest.indexOf(wanted) + wanted.length : -1;
      const match = wanted.exec(rest);
      return match === null ? -1 : match.index + match[0].length;
    };
    await this.#until(() => find() >= 0, String(wanted));
    const end = this.#seen + find();
    const text = this.output.slice(this.#seen, end);
    this.#seen = end;
    return text;
  }

  /** Types this again and again until what is wanted comes: for a command that may not have heard yet of what it is asked about. */
  async typeUntil(typed: string, wanted: string): Promise<void> {
    const pressing = setInterval(() => this.type(typed), 1000);
    this.type(typed);
    await this.until(wanted).finally(() => clearInterval(pressing));
  }

  /** Waits until the terminal's modes are these. */
  async untilModes(wanted: (modes: string) => boolean): Promise<void> {
    const end = Date.now() + patienceMs;
    while (!wanted(await this.modes())) {
      if (Date.now() > end) throw new Error(`the terminal's modes stay ${await this.modes()}`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  /** Waits until the command is stopped (proc(5), state T). */
  async untilStopped(): Promise<void> {
    const pid = await this.pid();
    while (!/^State:\tT/m.test(readFileSync(`/proc/${pid}/status`, "utf8"))) await new Promise((resolve) => setTimeout(resolve, 20));
  }

  close(): void {
    this.#driver.stdin!.end();
  }

  async #until(probe: () => boolean, what: string): Promise<void> {
    const end = Date.now() + patienceMs;
    while (!probe()) {
      const left = this.#gone ? 0 : end - Date.now();
      if (left <= 0) throw new Error(`waited for ${what}; there is ${JSON.stringify(this.output.slice(this.#seen))} after ${JSON.stringify(this.output.slice(0, this.#seen).slice(-500))}`);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, left);
        this.#changed = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }

  #take(message: Message): void {
    if (message.pid !== undefined) this.#pid = message.pid;
    if (message.output !== undefined) this.output += Buffer.from(message.output, "base64").toString("latin1");
    if (message.modes !== undefined) this.#modes.shift()?.(message.modes.join(":"));
    if (message.exit !== undefined) this.#exit(message.exit);
    this.#changed();
  }

  #say(message: object): void {
    this.#driver.stdin!.write(`${JSON.stringify(message)}\n`);
  }
}

interface Message {
  pid?: number;
  output?: string;
  modes?: number[];
  /** Exit status; -n if signal n ended it. */
  exit?: number;
}
