/** A VM to be used for as long as the caller likes: one of its own, or one that others use as well. */
import { resolve } from "node:path";
import { checkLimit, limits } from "../limits.js";
import type { AnsweringVm } from "../exec.js";
import { networkOf, type Network, type NetworkRequest } from "../network.js";
import { startVm, type StartOptions } from "../start.js";
import { connectVm, type ConnectOptions } from "./connect.js";
import { knowVm } from "./store.js";

export interface OpenRequest extends NetworkRequest {
  environment: string;
  /** 1 to 32; default 1. */
  vcpuCount?: number;
  /** 128 to 65,536; default 1024. */
  memMib?: number;
  /** Scratch disk, 64 to 1,048,576; default 10,240. Sparse. */
  diskMib?: number;
  /** 1 to 604,800; default 600. */
  ttlSeconds?: number;
  /** A file for the audit of its network. */
  auditFile?: string;
}

/** A guest that answers. `close` ends a VM of our own, and lets go of a shared one. */
export interface OpenedVm extends AnsweringVm {
  environment: string;
  /** Others use it as well: it has a record. */
  shared: boolean;
  /** What it may reach, of one of our own. */
  network?: Network;
  close(): Promise<void>;
}

/** A VM that belongs to this process and ends with it, however it ends; nothing of it is ever on disk by name. Throws what `runInVm` throws. */
export async function openVm(request: OpenRequest, options: StartOptions = {}): Promise<OpenedVm> {
  const network = await networkOf(request);
  const vm = await startVm(
    {
      environment: request.environment,
      vcpuCount: checkLimit("vcpuCount", request.vcpuCount),
      memMib: checkLimit("memMib", request.memMib),
      diskMib: checkLimit("diskMib", request.diskMib),
      ttlSeconds: checkLimit("ttlSeconds", request.ttlSeconds ?? limits.ttlSeconds.default),
      ...(network && { network }),
      ...(request.auditFile !== undefined && { auditFile: resolve(request.auditFile) }),
    },
    options,
  );
  return { ...vm, environment: request.environment, shared: false, ...(network && { network }), close: () => vm.end() };
}

/** A started VM that has a record. Throws NOT_FOUND, INVALID_STATE, GUEST_LOST, CANCELLED. */
export async function attachVm(vmId: string, options: ConnectOptions = {}): Promise<OpenedVm> {
  const known = await knowVm(vmId);
  try {
    const vm = await connectVm(known, options);
    return { ...vm, shared: true, close: async () => vm.release() };
  } catch (error) {
    known.found?.release();
    throw error;
  }
}
