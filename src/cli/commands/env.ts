import { Option, type Command as Program } from "commander";
import { exportEnvironment, inspectEnvironment, listEnvironments, pruneEnvironments, pullEnvironment, removeEnvironment, warmEnvironment } from "../../core/index.js";
import { limitOption, wholeNumber } from "../options.js";
import { phaseLine, pullJson, pullLine } from "../phases.js";
import type { CommandContext } from "../program.js";
import { formatBytes, formatTable } from "../render.js";
import { standardInput } from "../terminal.js";
import { defineBuild } from "./env-build.js";

interface JsonFlag {
  json?: boolean;
}

export function define(program: Program, context: CommandContext): void {
  const { output } = context;
  const env = program.command("env").summary("list, pull, build, warm, inspect, export, remove and prune environments").description("Environments: what a VM boots from.");

  env
    .command("list")
    .description("list the environments that can be used")
    .option("--json", "print JSON")
    .action(async (flags: JsonFlag) => {
      const environments = await listEnvironments({ signal: context.interrupts.signal });
      if (flags.json) return output.json({ environments });
      const rows = environments.map((each) => [each.name, each.installed ? "installed" : "-", each.sizeBytes === undefined ? "-" : formatBytes(each.sizeBytes), each.source ?? "-", each.description]);
      output.result(formatTable([["NAME", "STATE", "SIZE", "SOURCE", "DESCRIPTION"], ...rows]));
    });

  env
    .command("pull")
    .description("make an environment ready for use; verifies and repairs one that is there, and follows an image's tag")
    .argument("<environment>", "a name, see `pyro env list`; an image in a registry; an OCI layout directory or a saved archive")
    .option("--source <image>", "the image that the name is to stand for; - for an archive on standard input; debian-archive for a name of the catalog")
    .option("--platform <platform>", "which image of several, such as linux/amd64/v3")
    .option("--force", "make it again although it is whole")
    .addOption(new Option("--progress <form>", "json: each event as a line of JSON on standard error").choices(["lines", "json", "none"]))
    .option("--json", "print JSON")
    .addHelpText(
      "after",
      `
Examples:
  pyro env pull debian:12-build
  pyro env pull docker.io/library/python:3.12-slim
  pyro env pull ./layout:latest
  docker save team/ci | pyro env pull ci --source -`,
    )
    .action(async (name: string, { json, progress = json ? "none" : "lines", ...flags }: JsonFlag & { force?: boolean; source?: string; platform?: string; progress?: "lines" | "json" | "none" }) => {
      const environment = await pullEnvironment(name, {
        signal: context.interrupts.signal,
        ...flags,
        ...(flags.source === "-" && { input: standardInput() }),
        ...(progress === "json" && { onProgress: (event) => pullJson(output, event) }),
        ...(progress === "lines" && { onProgress: (event) => pullLine(output, "pull", event), onPhase: (phase) => phaseLine(output, "pull", name, phase) }),
      });
      if (json) return output.json(environment);
      output.line(`[pull] phase=done environment=${name}`);
      output.result(formatTable([["name", environment.name], ["digest", environment.digest ?? "-"], ["size", formatBytes(environment.sizeBytes ?? 0)], ["source", environment.source ?? "-"]]));
    });

  defineBuild(env, context);

  env
    .command("warm")
    .description("boot and freeze a VM ahead, so that the first one of this size starts as fast as all others")
    .argument("<environment>", "name, see `pyro env list`")
    .addOption(limitOption("--vcpu-count <n>", "virtual processors", "vcpuCount"))
    .addOption(limitOption("--mem-mib <n>", "memory, MiB", "memMib"))
    .option("--json", "print JSON")
    .addHelpText("after", "\nExample:\n  pyro env warm debian:12-build --vcpu-count 2 --mem-mib 4096")
    .action(async (name: string, flags: JsonFlag & { vcpuCount?: number; memMib?: number }) => {
      const { json, ...size } = flags;
      const warm = await warmEnvironment({ environment: name, ...size }, { signal: context.interrupts.signal, ...(json ? {} : { onPhase: (phase) => phaseLine(output, "warm", name, phase) }) });
      if (json) return output.json(warm);
      output.line(`[warm] phase=done environment=${name} vcpu_count=${warm.vcpuCount} mem_mib=${warm.memMib} made=${warm.made}`);
    });

  env
    .command("inspect")
    .description("show what an environment is made of: kernel, files, digests, packages")
    .argument("<environment>", "name, see `pyro env list`")
    .option("--json", "print JSON")
    .action(async (name: string, flags: JsonFlag) => {
      const details = await inspectEnvironment(name, { signal: context.interrupts.signal });
      if (flags.json) return output.json(details);
      const rows: string[][] = [
        ["name", details.name],
        ["description", details.description],
        ["distribution", details.distribution],
        ["platform", details.platform],
        ["installed", details.installed ? "yes" : `no: pyro env pull ${details.name}`],
      ];
      if (details.damage !== undefined) rows.push(["damage", details.damage]);
      if (details.digest !== undefined) rows.push(["digest", details.digest]);
      if (details.source !== undefined) rows.push(["source", details.source]);
      if (details.image !== undefined) {
        const { manifestDigest, layers, user, workingDir, entrypoint, cmd, env } = details.image;
        rows.push(["image", manifestDigest], ["layers", `${layers.length}, ${formatBytes(layers.reduce((sum, each) => sum + each.sizeBytes, 0))}`]);
        if (entrypoint !== undefined) rows.push(["entrypoint", JSON.stringify(entrypoint)]);
        if (cmd !== undefined) rows.push(["command", JSON.stringify(cmd)]);
        if (user !== undefined) rows.push(["user", user]);
        if (workingDir !== undefined) rows.push(["directory", workingDir]);
        for (const each of env) rows.push(["variable", each]);
      }
      if (details.kernel !== undefined) rows.push(["kernel", `${details.kernel.version} ${details.kernel.digest}`]);
      for (const file of details.files ?? []) rows.push([file.name, `${formatBytes(file.sizeBytes)} ${file.digest}`]);
      output.result(formatTable(rows));
      if (details.packages !== undefined && details.packages.length > 0) {
        output.result(`\n${details.packages.length} packages:\n${formatTable(details.packages.map((each) => [`  ${each.name}`, each.version]))}`);
      }
    });

  env
    .command("prune")
    .description("remove what is no longer used: replaced and broken environments, content of images that none is made of, templates that nothing can be forked from any more, what a crash left")
    .addOption(new Option("--older-than-days <n>", "also environments that were pulled longer ago; never one that a VM is of").argParser(wholeNumber))
    .addOption(new Option("--max-mib <n>", "also environments, those pulled longest ago first, until no more than this is left").argParser(wholeNumber))
    .option("--json", "print JSON")
    .action(async ({ json, olderThanDays, maxMib }: JsonFlag & { olderThanDays?: number; maxMib?: number }) => {
      const asked = { ...(olderThanDays !== undefined && { olderThanSeconds: olderThanDays * 86_400 }), ...(maxMib !== undefined && { maxMib }) };
      report(await pruneEnvironments({ ...waiting("prune", json), ...asked }), json);
    });

  env
    .command("remove")
    .description("remove an environment that is installed, with what nothing else needs")
    .argument("<environment>", "name, see `pyro env list`")
    .option("--json", "print JSON")
    .action(async (name: string, { json }: JsonFlag) => report(await removeEnvironment(name, waiting("remove", json)), json));

  env
    .command("export")
    .description("write an environment as an OCI layout directory")
    .argument("<environment>", "name, see `pyro env list`")
    .argument("<directory>", "is made")
    .option("--json", "print JSON")
    .action(async (name: string, directory: string, { json }: JsonFlag) => {
      const exported = await exportEnvironment(name, directory, { signal: context.interrupts.signal });
      if (json) return output.json(exported);
      output.result(formatTable([["directory", exported.directory], ["image", exported.manifestDigest]]));
    });

  const waiting = (verb: string, json: boolean | undefined) => ({ signal: context.interrupts.signal, ...(!json && { onWait: (what: string) => output.line(`[${verb}] phase=waiting message=${JSON.stringify(what)}`) }) });

  function report({ removed, reclaimedBytes }: { removed: string[]; reclaimedBytes: number }, json: boolean | undefined): void {
    if (json) return output.json({ removed, reclaimedBytes });
    for (const each of removed) output.line(`removed ${each}`);
    output.result(`${formatBytes(reclaimedBytes)} freed\n`);
  }
}
