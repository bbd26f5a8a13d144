// One of the processes of a storm: calls of the SDK, asked for by lines of JSON on standard input, [verb, ...arguments]; each is answered by a line.
import { createInterface } from "node:readline";
import { Pyro, PyroError } from "../../dist/index.js";

// The wall clock as this process sees it; it jumps when it is told to. The clock since the host's boot does not.
let jumpedMs = 0;
const now = Date.now;
globalThis.Date = class extends Date {
  constructor(...args) {
    super(...(args.length === 0 ? [now() + jumpedMs] : args));
  }
  static now = () => now() + jumpedMs;
};

const pyro = new Pyro();
const attached = async (vmId, command) => {
  const vm = await pyro.connectVm(vmId);
  try {
    return await vm.exec(command);
  } finally {
    await vm.close();
  }
};
const verbs = {
  create: (options) => pyro.createVm(options),
  start: (vmId) => pyro.startVm(vmId),
  exec: attached,
  execVm: (vmId, command) => pyro.execVm(vmId, { command }),
  stop: (vmId) => pyro.stopVm(vmId),
  delete: (vmId) => pyro.deleteVm(vmId),
  list: () => pyro.listVms(),
  status: (vmId) => pyro.statusVm(vmId),
  reap: () => pyro.reapExpired(),
  jump: async (ms) => void (jumpedMs += ms),
};

for await (const line of createInterface({ input: process.stdin })) {
  const [verb, ...args] = JSON.parse(line);
  const answer = await verbs[verb](...args).then((result) => ({ result }), (error) => ({
    error: error instanceof PyroError ? { code: error.code, message: error.message } : { code: "INTERNAL", message: error.stack },
  }));
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
