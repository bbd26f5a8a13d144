/** A VM that outlives the process: first only its record. */
import { mkdir } from "node:fs/promises";
import { checkSignal } from "../../base/deadline.js";
import { PyroError, systemCode, toPyroError } from "../../base/error.js";
import { openEnvironment } from "../../environments/index.js";
import { checkLimit } from "../limits.js";
import { checkHostCompat, networkOf, type NetworkRequest } from "../network.js";
import { newVmId } from "../start.js";
import { hostTime } from "./expiry.js";
import { publicVm, writeVmRecord, type Vm, type VmRecord } from "./record.js";
import { makeVmsDirectory, removeVm, tryVmLock, vmDirectory } from "./store.js";

export interface CreateRequest extends NetworkRequest {
  environment: string;
  /** 1 to 32; default 1. */
  vcpuCount?: number;
  /** 128 to 65,536; default 1024. */
  memMib?: number;
  /** Scratch disk, 64 to 1,048,576; default 10,240. Sparse. */
  diskMib?: number;
  /** 1 to 604,800; default 600. Counted from now. */
  ttlSeconds?: number;
  allowHostCompat?: boolean;
}

/** Throws INVALID_ARGUMENT, NOT_FOUND for an environment that nobody knows, UNSUPPORTED, DENIED, DISK_FULL, CANCELLED. */
export async function createVm(request: CreateRequest, options: { signal?: AbortSignal } = {}): Promise<Vm> {
  const sizes = { vcpuCount: checkLimit("vcpuCount", request.vcpuCount), memMib: checkLimit("memMib", request.memMib), diskMib: checkLimit("diskMib", request.diskMib) };
  const ttlSeconds = checkLimit("ttlSeconds", request.ttlSeconds);
  const network = await networkOf(request);
  checkHostCompat(request, network);
  await checkEnvironment(request.environment);
  checkSignal(options.signal);
  await makeVmsDirectory();
  const { bootId, uptimeMs, wallMs } = await hostTime();
  // Twice the same eight letters among the VMs of one user: not to be expected, and no reason to fail.
  for (let attempt = 0; attempt < 8; attempt++) {
    const record: VmRecord = {
      vmId: newVmId(),
      environment: request.environment,
      state: "created",
      ...sizes,
      ttlSeconds,
      createdAt: new Date(wallMs).toISOString(),
      expiresAt: new Date(wallMs + ttlSeconds * 1000).toISOString(),
      networkEnabled: network !== undefined,
      ...(network && { network }),
      executionMode: "pending",
      allowHostCompat: request.allowHostCompat === true,
      hostBootId: bootId,
      expiresAtUptimeMs: uptimeMs + ttlSeconds * 1000,
    };
    if (await keep(record)) return publicVm(record);
  }
  throw new PyroError("INTERNAL", "No name for a new VM could be found.");
}

/** False if there is such a VM. */
async function keep(record: VmRecord): Promise<boolean> {
  const lock = await tryVmLock(record.vmId); // a directory without a record and without its maker is cleared away by whoever sees it
  if (lock === undefined) return false;
  try {
    await mkdir(vmDirectory(record.vmId), { mode: 0o700 });
  } catch (error) {
    await lock.release();
    if (systemCode(error) === "EEXIST") return false;
    throw toPyroError(error);
  }
  try {
    await writeVmRecord(vmDirectory(record.vmId), record);
    return true;
  } catch (error) {
    await removeVm(record.vmId);
    throw error;
  } finally {
    await lock.release();
  }
}

/** One that is known but not there yet, or damaged, is pulled when the VM is started. */
async function checkEnvironment(name: string): Promise<void> {
  await openEnvironment(name).catch((error: unknown) => {
    if (!(error instanceof PyroError) || error.code !== "ENVIRONMENT_INVALID") throw error;
  });
}
