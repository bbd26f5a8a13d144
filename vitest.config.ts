import { availableParallelism } from "node:os";
import { defineConfig } from "vitest/config";
import { BaseSequencer, type TestSpecification } from "vitest/node";

// Four projects: `unit` and `contract` never start a VM, `vm` starts real guests under whatever accelerator works here, `kvm` under KVM.
// VM tests run one file at a time: two emulated guests on two cores only slow each other down.
// The catalog is made from Debian's archive: tests wait for no registry elsewhere.
const env = { PYRO_CATALOG_FROM: "archive" };
// What is waited for comes or never does. Whatever has an end is far from it on a machine that is several times slower than ours, or that stands still for a while.
const patience = { hookTimeout: 900_000, expect: { poll: { timeout: 120_000 } } };

/** What has run since the beginning is looked at last, whatever took how long the last time: the less there is to wait for. */
class MinutesLast extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const isLast = ({ moduleId }: TestSpecification) => moduleId.endsWith("/network-minutes.test.ts");
    const sorted = await super.sort(files);
    return [...sorted.filter((file) => !isLast(file)), ...sorted.filter(isLast)];
  }
}

export default defineConfig({
  test: {
    maxWorkers: Math.max(3, availableParallelism() - 1), // most of what they do is wait for processes
    sequence: { sequencer: MinutesLast },
    teardownTimeout: 900_000, // what the tests left behind is looked for then
    projects: [
      { test: { name: "unit", include: ["test/**/*.test.ts"], exclude: ["test/vm/**", "test/kvm/**", "test/contract/**"], env, testTimeout: 300_000, ...patience } },
      { test: { name: "contract", include: ["test/contract/**/*.test.ts"], env, testTimeout: 600_000, ...patience } },
      {
        test: {
          name: "vm",
          include: ["test/vm/**/*.test.ts"],
          globalSetup: ["test/vm/setup.ts"],
          env,
          fileParallelism: false,
          testTimeout: 1_200_000,
          ...patience,
        },
      },
      { test: { name: "kvm", include: ["test/kvm/**/*.test.ts"], globalSetup: ["test/kvm/setup.ts"], testTimeout: 1_200_000, ...patience } },
    ],
  },
});
