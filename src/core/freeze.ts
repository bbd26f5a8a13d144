/** Boots a VM, has it touch what every first command needs, and freezes it: what forks need not do again. */
import type { Readable } from "node:stream";
import { withDeadline } from "../base/deadline.js";
import { toPyroError } from "../base/error.js";
import { log } from "../base/log.js";
import type { Channel } from "../channel/index.js";
import { bootDeadline, type Forking } from "../vmm/index.js";
import { guestNetwork } from "./guest-network.js";
import type { TemplateRequest } from "./template.js";

/** Part of a template's key: another warm-up makes another template. */
export const warmUpVersion = "3";

/**
 * What is run, in this order; what is not there in an environment does no harm. It takes the processor time of a fork up to the answer of
 * `/bin/true` from 220 to 160 ms, of `sh -c true` from 240 to 180, of the login shell's `true` from 440 to 310 (TCG, medians of 7). Tried and
 * left out, as it changed nothing: name look-ups (getent), ls, sync.
 */
const warmUp: readonly (readonly string[] | string)[] = [["/bin/true"], ["/bin/sh", "-c", "true"], "true"];

/** For all of the warm-up; under emulation and load one command may take a second. */
const warmUpMs = 60_000;
/** The template's own time to live: its maker ends it much earlier, or dies and ends it by that. */
const ttlSeconds = 900;

/** Leaves a template in `directory`. Rejects with BOOT_FAILED and all that `freeze` rejects with. */
export async function freezeWarm(forking: Forking, { environment, spec, accelerator }: TemplateRequest, directory: string, signal?: AbortSignal): Promise<void> {
  const vm = await forking.startTemplate({ ...spec, ttlSeconds, lockShared: [environment.lockFile] }, accelerator, directory, signal);
  try {
    const { connectChannel } = await import("../channel/index.js");
    const channel = await bootDeadline(vm, (abort) => connectChannel(vm.ports[0]!, { fresh: true, signal: abort }), signal);
    await withDeadline(warm(channel), warmUpMs, "The template's warm-up", signal);
    // The channel stays open: all was answered, so the guest waits at the beginning of a frame, and forks begin there.
    await vm.freeze();
  } finally {
    await vm.end();
  }
}

async function warm(channel: Channel): Promise<void> {
  // Every fork is told who it is in the same place of the same file. Its card was up once and is down again, so that making it up costs one with a network little.
  const template = { vmId: "template", hostname: "template", machineId: "0".repeat(32) };
  // A kernel of the user's own may know no card; that is for those VMs to fail with that want one.
  await channel.identify({ ...template, network: guestNetwork }).catch((error: unknown) => log("no card to warm up", { why: toPyroError(error).message }));
  await channel.identify(template);
  for (const command of warmUp) {
    const begin = Date.now();
    const guest = channel.exec(typeof command === "string" ? { shell: command, stdin: false } : { argv: [...command], stdin: false });
    await Promise.all([dropped(guest.stdout), dropped(guest.stderr)]);
    await guest.result;
    log("template warmed", { command: String(command), ms: Date.now() - begin });
  }
}

async function dropped(stream: Readable): Promise<void> {
  for await (const chunk of stream) void chunk;
}
