import type { Command as Program } from "commander";
import { createVm, deleteVm, listVms, networkInfoVm, reapExpired, startVm, statsVm, statusVm, stopVm, vmLogs, type CreateRequest, type Vm } from "../../core/index.js";
import { limitOption } from "../options.js";
import { phaseLine, warningLine } from "../phases.js";
import type { CommandContext } from "../program.js";
import { formatBytes, formatTable, formatUntil, type Output } from "../render.js";
import { defineExec } from "./vm-exec.js";
import { defineJobs } from "./vm-jobs.js";

interface JsonFlag {
  json?: boolean;
}

export function define(program: Program, context: CommandContext): void {
  const { output, interrupts } = context;
  const { signal } = interrupts;
  const vm = program.command("vm").summary("create, use and end VMs that outlive a command").description("VMs with an id: they outlive the process that made them, and any process of yours can use them until their time to live is over.").addHelpText(
    "after",
    `
Example:
  id=$(pyro vm create debian:12 --ttl-seconds 3600)
  pyro vm start $id
  pyro vm exec $id -- git --version
  pyro vm delete $id`,
  );

  vm.command("create")
    .description("make a VM's record and print its id; nothing runs yet")
    .argument("<environment>", "name of an environment, see `pyro env list`")
    .addOption(limitOption("--vcpu-count <n>", "virtual processors", "vcpuCount"))
    .addOption(limitOption("--mem-mib <n>", "memory, MiB", "memMib"))
    .addOption(limitOption("--disk-mib <n>", "scratch disk, MiB, sparse", "diskMib"))
    .addOption(limitOption("--ttl-seconds <n>", "from now on, whatever happens", "ttlSeconds"))
    .option("--network", "allow the guest to reach the network (not available yet: refused)")
    .option("--allow-host-compat", "run its one command on the host, NOT ISOLATED, if no VM can be had")
    .option("--start", "start it, too")
    .option("--json", "print JSON")
    .action(async (environment: string, flags: JsonFlag & { start?: boolean } & Omit<CreateRequest, "environment">) => {
      const { json, start, ...request } = flags;
      const created = await createVm({ environment, ...request }, { signal });
      if (start !== true) return shown(output, created, json);
      try {
        shown(output, await startVm(created.vmId, { signal, ...phases(output, "create", environment, json) }), json);
      } catch (error) {
        await deleteVm(created.vmId); // its id was told to nobody
        throw error;
      }
    });

  vm.command("start")
    .description("start a VM that was created; boot one that was stopped, with the disk it had")
    .argument("<vm-id>", "see `pyro vm list`")
    .option("--json", "print JSON")
    .action(async (vmId: string, flags: JsonFlag) => {
      const { environment } = await statusVm(vmId);
      shown(output, await startVm(vmId, { signal, ...phases(output, "start", environment, flags.json) }), flags.json);
    });

  defineExec(vm, context);
  defineJobs(vm, context);

  vm.command("stop")
    .description("end a VM; its record, disk and log stay until its time to live is over")
    .argument("<vm-id>", "see `pyro vm list`")
    .option("--json", "print JSON")
    .action(async (vmId: string, flags: JsonFlag) => shown(output, await stopVm(vmId, { signal }), flags.json));

  vm.command("delete")
    .description("end VMs and remove all that is left of them")
    .argument("<vm-id...>", "see `pyro vm list`")
    .option("--json", "print JSON")
    .action(async (vmIds: string[], flags: JsonFlag) => {
      const deleted = [];
      for (const vmId of vmIds) {
        deleted.push(await deleteVm(vmId, { signal }));
        if (!flags.json) output.result(`${vmId}\n`);
      }
      if (flags.json) output.json({ deleted });
    });

  vm.command("status")
    .description("show what is true of a VM now")
    .argument("<vm-id>", "see `pyro vm list`")
    .option("--json", "print JSON")
    .action(async (vmId: string, flags: JsonFlag) => {
      const status = await statusVm(vmId);
      if (flags.json) return output.json(status);
      output.result(formatTable(Object.entries(status).map(([name, value]) => [name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`), String(value)])));
    });

  vm.command("stats")
    .description("show what a VM uses of the host, and what its guest says of itself")
    .argument("<vm-id>", "see `pyro vm list`")
    .option("--json", "print JSON")
    .action(async (vmId: string, flags: JsonFlag) => {
      const stats = await statsVm(vmId);
      if (flags.json) return output.json(stats);
      const { uptimeMs, host, guest } = stats;
      output.result(formatTable([
        ["vm_id", stats.vmId],
        ["state", stats.state],
        ...(uptimeMs === undefined ? [] : [["uptime", `${Math.round(uptimeMs / 1000)} s`]]),
        ["remaining", `${Math.round(stats.remainingMs / 1000)} s`],
        ...(host === undefined ? [] : [["cpu", `${(host.cpuMs / 1000).toFixed(2)} s`], ["memory", formatBytes(host.memoryBytes)], ["disk", formatBytes(host.diskBytes)]]),
        ...(guest === undefined ? [] : [
          ["guest memory", `${formatBytes(guest.memoryAvailableBytes)} of ${formatBytes(guest.memoryTotalBytes)} available`],
          ["guest disk", `${formatBytes(guest.diskFreeBytes)} of ${formatBytes(guest.diskTotalBytes)} free`],
          ["guest cpu", `${(guest.cpuTimeMs / 1000).toFixed(2)} s by commands`],
          ["guest processes", String(guest.processes)],
        ]),
      ]));
    });

  vm.command("list")
    .description("list the VMs that have an id, oldest first")
    .option("--json", "print JSON")
    .action(async (flags: JsonFlag) => {
      const vms = await listVms();
      if (flags.json) return output.json({ vms });
      output.result(formatTable([["VM", "STATE", "ENVIRONMENT", "VCPUS", "MEM_MIB", "EXPIRES"], ...vms.map((each) => [each.vmId, each.state, each.environment, String(each.vcpuCount), String(each.memMib), formatUntil(each.expiresAt)])]));
    });

  vm.command("logs")
    .description("print the end of a VM's console")
    .argument("<vm-id>", "see `pyro vm list`")
    .option("--json", "print JSON")
    .action(async (vmId: string, flags: JsonFlag) => {
      const console = await vmLogs(vmId);
      if (flags.json) return output.json({ vmId, console });
      output.result(console === "" ? "" : `${console}\n`);
    });

  vm.command("network")
    .description("show what a VM may reach")
    .argument("<vm-id>", "see `pyro vm list`")
    .option("--json", "print JSON")
    .action(async (vmId: string, flags: JsonFlag) => {
      const info = await networkInfoVm(vmId);
      if (flags.json) return output.json(info);
      output.result(formatTable([["vm_id", info.vmId], ["network_enabled", String(info.networkEnabled)], ["policy", info.policy]]));
    });

  vm.command("reap")
    .description("end VMs whose time is over and clear away what a crash left; every command does so, too")
    .option("--json", "print JSON")
    .action(async (flags: JsonFlag) => {
      const result = await reapExpired({ signal });
      if (flags.json) return output.json(result);
      for (const vmId of result.reaped) output.result(`${vmId}\n`);
    });
}

function shown(output: Output, vm: Vm, json: boolean | undefined): void {
  if (json) output.json(vm);
  else output.result(`${vm.vmId}\n`);
}

function phases(output: Output, verb: "create" | "start", environment: string, json: boolean | undefined): Pick<NonNullable<Parameters<typeof startVm>[1]>, "onPhase"> {
  if (json) return {};
  return {
    onPhase: (phase) => {
      phaseLine(output, verb, environment, phase);
      warningLine(output, phase);
    },
  };
}
