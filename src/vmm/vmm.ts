/** What a virtual machine monitor does for the rest of pyro, whichever it is. Everything above this folder knows only these shapes. */
import type { Duplex } from "node:stream";

export type Accelerator = "kvm" | "tcg";

/** The machine to start. Files are absolute paths; the monitor opens them and nothing else. */
export interface VmSpec {
  vcpuCount: number;
  memMib: number;
  /** Uncompressed kernel (ELF with the PVH note). */
  kernel: string;
  initramfs: string;
  /** Read-only disk image; the guest finds it by the serial number `root`. */
  rootDisk?: string;
  /** Pristine disk image that the VM gets a throw-away copy of (copy-on-write), serial number `scratch`. Never written to. */
  scratchBase?: string;
  /** Where the copy's blocks live, in files without a name. */
  temporaryDirectory: string;
  /** The VM ends then, whether or not this process lives. Seconds from now. */
  ttlSeconds?: number;
  /** Files that are share-locked (flock) for as long as the VM lives. */
  lockShared?: readonly string[];
  /** More kernel arguments, after the backend's own. */
  kernelArguments?: readonly string[];
  /** Serial ports `pyro.0`, `pyro.1` … Default 1. */
  ports?: number;
}

export interface VmExit {
  /**
   * The first cause: `ttl` the time to live ended, `guest` the guest powered off, rebooted or panicked, `killed` we ended it
   * (`end()`), `failed` the monitor died or was killed by somebody else.
   */
  reason: "ttl" | "guest" | "killed" | "failed";
  code: number | null;
  signal: NodeJS.Signals | null;
  /** The end of what the monitor wrote to standard error, made harmless. */
  stderr: string;
}

/** How far a VM has come: a deadline that counts these does not fail on a host that is merely slow. */
export interface VmProgress {
  /** Processor time the monitor has used, milliseconds; undefined where the host does not tell. */
  cpuMs: number | undefined;
  /** Bytes the guest has written to its console. */
  consoleBytes: number;
}

/** A VM that belongs to this process and ends with it. It leaves nothing on disk. "Running" is not "ready": that is a hello on a port. */
export interface RunningVm {
  /** The process that keeps it. */
  readonly pid: number;
  readonly accelerator: Accelerator;
  readonly ports: readonly Duplex[];
  /** The end of the guest's console, control characters made harmless. */
  console(): string;
  progress(): Promise<VmProgress>;
  readonly exited: Promise<VmExit>;
  /** Kills it and resolves when all of its processes are gone. Safe to call again. */
  end(): Promise<void>;
}

export interface VmmVersion {
  version: string;
  /** Differs whenever the installed monitor does. */
  build: string;
}

/** One monitor. A rare ability (freezing, forking) will be an optional method: absent where there is none. */
export interface Backend {
  readonly name: string;
  version(signal?: AbortSignal): Promise<VmmVersion>;
  start(spec: VmSpec, accelerator: Accelerator, signal?: AbortSignal): Promise<RunningVm>;
}
