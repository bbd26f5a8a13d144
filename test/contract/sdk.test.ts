import { readFileSync } from "node:fs";
import { expect, test } from "vitest";

test("what `import … from \"pyro-mcp\"` gives", async () => {
  const sdk = (await import(new URL("../../dist/index.js", import.meta.url).pathname)) as Record<string, unknown>;
  expect(Object.keys(sdk).sort()).toEqual(["GuestFiles", "GuestJobs", "Pyro", "PyroError", "Vm", "createServer", "errorCodes"]);
  const prototype = (sdk["Pyro"] as { prototype: object }).prototype;
  expect(Object.getOwnPropertyNames(prototype).sort()).toEqual([
    "auditVm", "connectVm", "constructor", "createServer", "createVm", "deleteVm", "execVm", "exportEnvironment", "inspectEnvironment", "listEnvironments", "listVms", "logsVm", "networkInfoVm", "openVm", "pruneEnvironments",
    "pullEnvironment", "reapExpired", "removeEnvironment", "runInVm", "setNetworkVm", "startVm", "statsVm", "statusVm", "stopVm", "warmEnvironment",
  ]);
});

test("the closed set of error codes", async () => {
  const { errorCodes } = (await import(new URL("../../dist/index.js", import.meta.url).pathname)) as { errorCodes: object };
  expect(Object.keys(errorCodes)).toEqual([
    "INVALID_ARGUMENT", "NOT_FOUND", "EXISTS", "INVALID_STATE", "UNSUPPORTED", "DENIED", "TIMEOUT", "CANCELLED", "HOST_MISSING", "BOOT_FAILED", "VMM_EXITED", "GUEST_LOST",
    "PROTOCOL", "ENVIRONMENT_INVALID", "REGISTRY", "DISK_FULL", "INTERNAL",
  ]);
});

test("the page of error codes is the table", async () => {
  const { errorCodes } = (await import(new URL("../../dist/index.js", import.meta.url).pathname)) as { errorCodes: Record<string, string> };
  const page = readFileSync(new URL("../../docs/errors.md", import.meta.url), "utf8");
  const rows = [...page.matchAll(/^\| `([A-Z_]+)` \| (.*) \|$/gm)].map(([, code, meaning]) => [code, meaning]);
  expect(rows).toEqual(Object.entries(errorCodes));
});
