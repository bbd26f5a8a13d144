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
  /** Where the copy's blocks live, in files without a name; in the place's `scratch` where there is a place. */
  temporaryDirectory: string;
  place?: VmPlace;
  /** What the card is connected to: a program that runs beside the monitor and ends with it. Without it the card has no back end. */
  gateway?: GatewayProgram;
  /** The VM ends then, whether or not this process lives. Seconds from now. */
  ttlSeconds?: number;
  /** Files that are share-locked (flock) for as long as the VM lives. */
  lockShared?: readonly string[];
  /** More kernel arguments, after the backend's own. */
  kernelArguments?: readonly string[];
  /** How many of the guest's serial ports `pyro.0`, `pyro.1` … have a host side; with a place, all have. Default 1. */
  ports?: number;
}

/**
 * It gets the guest's Ethernet frames as descriptor 3 (a stream, each frame behind its length, 4 bytes big-endian), a socket to us as 4, and, of a VM with a
 * place, a listening socket as 5, which is `placeNames.net` there.
 */
export interface GatewayProgram {
  command: string;
  args: readonly string[];
}

/** Where other processes find a VM (`findVm`), so that it can outlive its maker. */
export interface VmPlace {
  /** For this VM alone. */
  directory: string;
  /** Whether its scratch disk begins anew, or goes on with what is in the directory. */
  disk: "new" | "kept";
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
  /** The next step, where the monitor is known not to have got as far as the guest. */
  hint?: string;
}

/** How far a VM has come: a deadline that counts these does not fail on a host that is merely slow. */
export interface VmProgress {
  /** Processor time the monitor has used, milliseconds; undefined where the host does not tell. */
  cpuMs: number | undefined;
  /** Bytes the guest has written to its console. */
  consoleBytes: number;
}

/** A VM that belongs to this process and ends with it, unless it is released. "Running" is not "ready": that is a hello on a port. */
export interface RunningVm {
  /** The process that keeps it. */
  readonly pid: number;
  readonly accelerator: Accelerator;
  readonly ports: readonly Duplex[];
  /** Our end of the gateway's descriptor 4, of a VM that has one. It closes when the gateway ends. */
  readonly gateway?: Duplex;
  /** The end of what the gateway wrote to standard error, made harmless. */
  gatewayLog?(): string;
  /** The end of the guest's console, control characters made harmless. */
  console(): string;
  progress(): Promise<VmProgress>;
  readonly exited: Promise<VmExit>;
  /** Kills it and resolves when all of its processes are gone. Safe to call again. */
  end(): Promise<void>;
  /** Of a VM with a place: lets it go on without us. Its ports are closed on our side. */
  release?(): void;
}

export interface VmmVersion {
  version: string;
  /** Differs whenever the installed monitor does. */
  build: string;
}

/** A VM of which memory and disk are in files, so that others can go on from where it is. */
export interface FreezableVm extends RunningVm {
  /**
   * Ends the VM; what is in its directory then is a template. Nobody may have the host's side of a port closed before, or be in the middle of
   * a frame: forks find their ports as they were. Rejects with VMM_EXITED, INTERNAL, PROTOCOL, TIMEOUT or what the file system says; the VM is gone then, too.
   */
  freeze(): Promise<void>;
}

/** Starting VMs from the frozen state of another one. A template is a directory; what is in it is the monitor's own business. */
export interface Forking {
  /** Differs whenever every template of this host is useless: another monitor, another boot of the host. */
  host(): Promise<string>;
  /** Differs whenever a template of this machine is of no use to the other: all that shapes it but the content of its disks and its kernel. */
  machine(spec: VmSpec, accelerator: Accelerator): Promise<string>;
  /** Boots a VM whose memory and scratch disk are files in `directory`. */
  startTemplate(spec: VmSpec, accelerator: Accelerator, directory: string, signal?: AbortSignal): Promise<FreezableVm>;
  /** A VM of its own that goes on where the template was frozen. `spec` is the template's, but for what no guest sees. */
  fork(spec: VmSpec, accelerator: Accelerator, directory: string, signal?: AbortSignal): Promise<RunningVm>;
}

/** One monitor. */
export interface Backend {
  readonly name: string;
  version(signal?: AbortSignal): Promise<VmmVersion>;
  start(spec: VmSpec, accelerator: Accelerator, signal?: AbortSignal): Promise<RunningVm>;
  /** A rare ability; absent where there is none. */
  readonly forking?: Forking;
}
