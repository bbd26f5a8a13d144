import { defineConfig } from "vitest/config";

// Three projects: `unit` and `contract` never start a VM, `vm` starts real guests under whatever accelerator works here.
// VM tests run one file at a time: two emulated guests on two cores only slow each other down.
// The catalog is made from Debian's archive: tests wait for no registry elsewhere.
const env = { PYRO_CATALOG_FROM: "archive" };

export default defineConfig({
  test: {
    projects: [
      { test: { name: "unit", include: ["test/**/*.test.ts"], exclude: ["test/vm/**", "test/contract/**"], env, testTimeout: 60_000 } },
      { test: { name: "contract", include: ["test/contract/**/*.test.ts"], env, testTimeout: 120_000 } },
      {
        test: {
          name: "vm",
          include: ["test/vm/**/*.test.ts"],
          globalSetup: ["test/vm/setup.ts"],
          env,
          fileParallelism: false,
          testTimeout: 300_000,
          hookTimeout: 900_000,
        },
      },
    ],
  },
});
