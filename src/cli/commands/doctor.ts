import type { Command as Program } from "commander";
import { harmless, harmlessLine } from "../../base/harmless.js";
import { diagnose, type DoctorReport } from "../../core/index.js";
import type { CommandContext } from "../program.js";
import { formatBytes, type Output } from "../render.js";

export function define(program: Program, context: CommandContext): void {
  program
    .command("doctor")
    .summary("find out what this host can do, and what it lacks")
    .description("Boots a guest and says what works, what doesn't, and the command that mends it. Exit status 0 only when a VM can run.")
    .option("--json", "print JSON")
    .action(async (flags: { json?: boolean }) => {
      const report = await diagnose({ signal: context.interrupts.signal, ...(!flags.json && { onStep: (step: string) => context.output.line(`[doctor] ${step}`) }) });
      if (flags.json) context.output.json(report);
      else context.output.result(describe(report, context.output));
      context.exitStatus = report.runtime === "PASS" ? 0 : 1;
    });
}

function describe(report: DoctorReport, output: Output): string {
  const { kvm, capabilities } = report;
  const mark = (ok: boolean) => (ok ? output.green("ok  ") : output.red("FAIL"));
  const yes = (value: boolean) => (value ? "yes" : "no");
  const guestRan = kvm.guestRan === undefined ? "not tried" : yes(kvm.guestRan);
  const lines = [
    `runtime: ${report.runtime === "PASS" ? output.green("PASS") : output.red("FAIL")}`,
    `platform: ${report.platform}`,
    `kvm: exists=${yes(kvm.exists)} readable=${yes(kvm.readable)} writable=${yes(kvm.writable)} guest_ran=${guestRan}${kvm.reason === undefined ? "" : ` (${harmlessLine(kvm.reason, 500)})`}`,
    ...(kvm.hint === undefined ? [] : [`     ${output.bold("mend it:")} ${harmlessLine(kvm.hint, 500)}`]),
    `accelerator: ${report.accelerator ?? "none"}${report.accelerator === "tcg" ? " (software emulation: works everywhere, slower)" : ""}`,
    `qemu: ${report.qemuVersion ?? "not found"}`,
    `cache: ${report.cache.path} (${formatBytes(report.cache.sizeBytes)} used, ${formatBytes(report.cache.freeBytes)} free)`,
    `capabilities: vm_boot=${yes(capabilities.vmBoot)} guest_exec=${yes(capabilities.guestExec)} guest_network=${yes(capabilities.guestNetwork)}`,
    "",
    ...report.checks.flatMap((check) => [`${mark(check.ok)} ${check.name}: ${harmless(check.detail)}`, ...(check.fix === undefined ? [] : [`     ${output.bold("mend it:")} ${harmless(check.fix)}`])]),
  ];
  return `${lines.join("\n")}\n`;
}
