import { Option, type Command as Program } from "commander";
import { PyroError } from "../../base/error.js";
import { auditVm, createVm, deleteVm, listVms, networkInfoVm, reapExpired, setNetworkVm, startVm, statsVm, statusVm, stopVm, vmLogs, type AuditRecord, type CreateRequest, type NetworkInfo, type NetworkRequest, type Vm } from "../../core/index.js";
import { limitOption, networkOptions, policyOf, policyOptions, splitNetwork, wholeNumber, type NetworkFlags, type PolicyFlags } from "../options.js";
import { phaseLine, warningLine } from "../phases.js";
import type { CommandContext } from "../program.js";
import { formatBytes, formatTable, formatUntil, type Output } from "../render.js";
import { defineExec } from "./vm-exec.js";
import { defineJobs } from "./vm-jobs.js";

interface JsonFlag {
  json?: boolean;
}

/** What takes longer is said to be under way, milliseconds. */
const slowMs = 1000;

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

  const create = vm.command("create").description("make a VM's record and print its id; nothing runs yet");
  networkOptions(create)
    .argument("<environment>", "name of an environment, see `pyro env list`")
    .addOption(limitOption("--vcpu-count <n>", "virtual processors", "vcpuCount"))
    .addOption(limitOption("--mem-mib <n>", "memory, MiB", "memMib"))
    .addOption(limitOption("--disk-mib <n>", "scratch disk, MiB, sparse", "diskMib"))
    .addOption(limitOption("--ttl-seconds <n>", "from now on, whatever happens", "ttlSeconds"))
    .option("--allow-host-compat", "run its one command on the host, NOT ISOLATED, if no VM can be had")
    .option("--start", "start it, too")
    .option("--json", "print JSON")
    .action(async (environment: string, flags: JsonFlag & { start?: boolean } & NetworkFlags & Omit<CreateRequest, "environment" | keyof NetworkRequest>) => {
      const { rest, request: network } = splitNetwork(flags);
      const { json, start, ...request } = rest;
      const created = await createVm({ environment, ...request, ...network }, { signal });
      if (start !== true) return shown(output, created, json);
      try {
        shown(output, await startVm(created.vmId, { signal, ...phases(output, "create", environment, json) }), json);
      } catch (error) {
        await deleteVm(created.vmId).catch(() => {}); // its id was told to nobody; why it did not start is what matters
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
    .action(async (vmId: string, flags: JsonFlag) => {
      const slow = flags.json ? undefined : setTimeout(() => output.line(`[stop] phase=stop vm_id=${vmId} message="the guest writes its disk and powers itself off"`), slowMs);
      try {
        shown(output, await stopVm(vmId, { signal }), flags.json);
      } finally {
        clearTimeout(slow);
      }
    });

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
      const { publishedPorts, ...plain } = status;
      output.result(formatTable([...Object.entries(plain).map(([name, value]) => [name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`), String(value)]), ...portsRow(publishedPorts)]));
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

  const network = vm.command("network").description("show what a VM may reach; with flags, let it reach that instead of what it could until now");
  policyOptions(network)
    .option("--none", "nothing at all")
    .argument("<vm-id>", "see `pyro vm list`")
    .option("--json", "print JSON")
    .action(async (vmId: string, { json, none, ...flags }: JsonFlag & { none?: boolean } & PolicyFlags) => {
      const changed = none === true || Object.keys(flags).length > 0;
      if (none && Object.keys(flags).length > 0) throw new PyroError("INVALID_ARGUMENT", "--none goes with no other flag.");
      const info = changed ? await setNetworkVm(vmId, none ? { network: false } : policyOf(flags), { signal }) : await networkInfoVm(vmId);
      if (json) output.json(info);
      else output.result(formatTable(networkRows(info)));
    });

  vm.command("audit")
    .description("print what a VM asked of the network, and what became of it, oldest first")
    .argument("<vm-id>", "see `pyro vm list`")
    .addOption(new Option("--last <n>", "only the last n lines").argParser(wholeNumber))
    .option("--json", "print JSON")
    .action(async (vmId: string, { json, last }: JsonFlag & { last?: number }) => {
      const records = await auditVm(vmId, { signal, ...(last !== undefined && { last }) });
      if (json) output.json({ vmId, records });
      else output.result(formatTable(records.map(auditRow)));
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

function networkRows(info: NetworkInfo): string[][] {
  const list = (name: string, values: readonly string[] | undefined) => (values === undefined || values.length === 0 ? [] : [[name, values.join(", ")]]);
  const { counters } = info;
  return [
    ["vm_id", info.vmId],
    ["network_enabled", String(info.networkEnabled)],
    ["policy", info.policy],
    ...list("allowed_hosts", info.allowedHosts),
    ...list("denied_hosts", info.deniedHosts),
    ...list("allowed_nets", info.allowedNets),
    ...(info.guestIp === undefined ? [] : [["guest_ip", info.guestIp], ["gateway_ip", info.gatewayIp!], ["dns", info.dns!], ["interface", info.interface!]]),
    ...portsRow(info.publishedPorts),
    ...list("secrets", info.secrets?.map(({ name, host }) => `${name}@${host}`)),
    ...(info.gatewayRunning === undefined ? [] : [["gateway_running", String(info.gatewayRunning)]]),
    ...(counters === undefined
      ? []
      : [
          ["connections", `${counters.connectionsTotal}, ${counters.connectionsOpen} of them open`],
          ["refused", String(counters.refusedTotal)],
          ["dns_queries", String(counters.dnsQueries)],
          ["sent", formatBytes(counters.bytesSent)],
          ["received", formatBytes(counters.bytesReceived)],
        ]),
  ];
}

function portsRow(ports: NetworkInfo["publishedPorts"] = []): string[][] {
  return ports.length === 0 ? [] : [["published_ports", ports.map(({ protocol, hostIp, hostPort, guestPort }) => `${hostIp}:${hostPort}:${guestPort}/${protocol}`).join(", ")]];
}

function auditRow(record: AuditRecord): string[] {
  const { time, type, protocol, name, address, port, query, rule, reason, bytesSent, bytesReceived, secret } = record;
  const target = [name, address === undefined ? undefined : `${address}${port === undefined ? "" : `:${port}`}`].filter((each) => each !== undefined).join(" ");
  const facts = { query, rule, reason, sent: bytesSent, received: bytesReceived, secret };
  return [time, type, protocol, target, Object.entries(facts).flatMap(([key, value]) => (value === undefined ? [] : [`${key}=${JSON.stringify(value)}`])).join(" ")];
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
