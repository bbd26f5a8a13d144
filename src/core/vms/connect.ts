/** A connection of our own to a guest that others may be connected to as well. */
import { PyroError } from "../../base/error.js";
import { cancelled, follow, sleep } from "../../base/deadline.js";
import type { Channel } from "../../channel/index.js";
import { configOf } from "../../environments/index.js";
import type { GatewayControl } from "../../net/index.js";
import { portCount, type FoundVm } from "../../vmm/index.js";
import type { AnsweringVm } from "../exec.js";
import { next } from "./lifecycle.js";
import type { Known } from "./store.js";

/** The last port is for `stop`: those that use a VM must not keep it from writing its disk. */
export const stopPort = portCount - 1;
const commandPorts = Array.from({ length: portCount - 1 }, (_, port) => port);
/** Each port serves one process at a time. The one asked first usually is free; while none answers, the next one is asked as well. */
const nextPortMs = 150;
/** A guest that did not answer for this long on any port hangs, was stopped, or is talked to by as many processes as it has ports. */
const defaultAnswerMs = 60_000;

export interface ConnectOptions {
  signal?: AbortSignal;
  /** How long the guest may take, milliseconds; default 60,000. */
  answerMs?: number;
  /** Those to be asked; all but `stop`'s when left out. */
  ports?: readonly number[];
}

/** A guest that answers us. `release` closes the connection (with what was begun on it), the VM lives on. */
export interface ConnectedVm extends AnsweringVm {
  environment: string;
  found: FoundVm;
  release(): void;
}

/** Throws INVALID_STATE for a VM that does not run, GUEST_LOST, CANCELLED. */
export async function connectVm({ record, found }: Known, options: ConnectOptions = {}): Promise<ConnectedVm> {
  next(record.vmId, record.state, "use", record.lastError);
  if (found === undefined || record.executionMode === "host_compat") throw new PyroError("UNSUPPORTED", `The VM ${record.vmId} is none: its command runs on the host. It can only be asked to run that one command.`, { hint: `pyro vm exec --rm ${record.vmId} -- COMMAND (execVm in the SDK)` });
  const [channel, config] = await Promise.all([firstAnswer(found, record.vmId, options), record.environmentDigest === undefined ? undefined : configOf(record.environmentDigest)]);
  return {
    vmId: record.vmId,
    environment: record.environment,
    accelerator: record.accelerator ?? "tcg",
    channel,
    bootMs: record.bootMs ?? 0,
    ...(config && { config }),
    ...(record.variables && { variables: Object.fromEntries(record.variables.map((each) => [each.slice(0, each.indexOf("=")), each.slice(each.indexOf("=") + 1)])) }),
    ...(record.publishedPorts && { publishedPorts: record.publishedPorts }),
    ...(record.networkEnabled && { openGateway: () => openGateway(found) }),
    vm: found,
    found,
    release: () => {
      channel.close();
      found.release();
    },
  };
}

/** A connection to the gateway of a VM that others may be connected to as well. Throws NOT_FOUND where it is gone. */
export async function openGateway(found: FoundVm): Promise<{ control: GatewayControl; release: () => void }> {
  const [{ GatewayControl }, socket] = await Promise.all([import("../../net/index.js"), found.openGateway()]);
  const control = new GatewayControl(socket);
  return { control, release: () => control.close() };
}

/** Asks the ports until one of them answers, and lets go of all others. */
async function firstAnswer(found: FoundVm, vmId: string, { signal, answerMs = defaultAnswerMs, ports = commandPorts }: ConnectOptions): Promise<Channel> {
  const { connectChannel } = await import("../../channel/index.js");
  const over = follow(signal);
  const begin = Math.floor(Math.random() * ports.length); // everybody beginning with the same one would meet there
  const ask = async (index: number) => {
    if (index > 0) await sleep(index * nextPortMs, over.signal);
    const channel = await connectChannel(await found.openPort(ports[(begin + index) % ports.length]!, over.signal), { signal: over.signal });
    if (!over.signal.aborted) return channel;
    channel.close();
    throw cancelled(over.signal);
  };
  const late = new PyroError("GUEST_LOST", `The VM ${vmId} did not answer within ${answerMs / 1000} s.`, {
    hint: `Its guest hangs, its process is stopped, or ${commandPorts.length} processes talk to it already. \`pyro vm logs ${vmId}\` shows its console.`,
  });
  const asked = ports.map((_, index) => ask(index));
  for (const each of asked) each.catch(() => {});
  try {
    return await Promise.race([
      Promise.any(asked).then((channel) => channel, (error: AggregateError) => Promise.reject(error.errors[0] as Error)),
      found.exited.then(() => Promise.reject(new PyroError("GUEST_LOST", `The VM ${vmId} ended.`))),
      sleep(answerMs, over.signal).then(() => Promise.reject(late)),
    ]);
  } catch (error) {
    if (signal?.aborted) throw cancelled(signal);
    throw error;
  } finally {
    over.abort();
  }
}
