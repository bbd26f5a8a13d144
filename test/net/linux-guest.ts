/** Linux' own network stack as the guest of a gateway: see tap.c. */
import { execFileSync, spawn, spawnSync, type ChildProcess } from "node:child_process";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import type { Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll } from "vitest";
import { Audit, type AuditRecord } from "../../src/net/audit.js";
import { dialBy, type Dial } from "../../src/net/dial.js";
import type { Resolution } from "../../src/net/dns/resolver.js";
import { Gateway } from "../../src/net/gateway.js";
import type { GatewaySecret } from "../../src/net/index.js";
import type { PolicyHook } from "../../src/net/policy-hook.js";
import { Proxies } from "../../src/net/proxy.js";
import type { Intercept } from "../../src/net/secrets/intercept.js";
import { Secrets } from "../../src/net/secrets/secrets.js";
import { allowAll } from "./allow-all.js";

const directory = mkdtempSync(join(tmpdir(), "pyro-tap-"));
const program = join(directory, "tap");
const resolvConf = join(directory, "resolv.conf");
afterAll(() => rmSync(directory, { recursive: true, force: true }));

/** Why this host can't have such a guest; undefined if it can. */
export const whyNoLinuxGuest: string | undefined = (() => {
  execFileSync("gcc", ["-O2", "-o", program, new URL("tap.c", import.meta.url).pathname]);
  writeFileSync(resolvConf, "nameserver 100.96.0.1\noptions timeout:30\n");
  const { status, stderr } = spawnSync(program, ["-r", resolvConf, "true"], { stdio: ["ignore", "ignore", "pipe", "pipe"] });
  return status === 0 ? undefined : `no namespace with a TAP device here: ${stderr.toString().trim()}`;
})();

function toLoopback(plainly: boolean): Dial {
  const dial = dialBy(new Proxies(), { plainly });
  return (_address, port, names) => dial("127.0.0.1", port, names, false);
}

export interface LinuxGuestOptions {
  hook?: PolicyHook;
  mtu?: number;
  resolve?(name: string, type: number): Promise<Resolution>;
  secrets?: GatewaySecret[];
  intercept?: Intercept;
  /** Any address leads to the host's loopback, by default. */
  dial?: Dial;
  isStandIn?(address: string): boolean;
}

export class LinuxGuest {
  readonly records: AuditRecord[] = [];
  readonly gateway: Gateway;
  readonly audit = new Audit(undefined, (record) => this.records.push(record));
  readonly ended: Promise<{ status: number | null; stdout: string; stderr: string }>;
  readonly child: ChildProcess;

  /** Runs `command` in it; it is over when that is. */
  constructor(command: readonly string[], { hook = allowAll, mtu = 9000, resolve, dial, secrets = [], intercept, isStandIn }: LinuxGuestOptions = {}) {
    this.child = spawn(program, ["-r", resolvConf, "-m", String(mtu), ...command], { stdio: ["ignore", "pipe", "pipe", "pipe"] });
    const cable = this.child.stdio[3] as Socket;
    this.gateway = new Gateway({
      socket: cable,
      hook,
      audit: this.audit,
      resolve: resolve ?? (async () => ({ code: 3, records: [], addresses: [] })),
      dial: dial ?? toLoopback(secrets.length > 0),
      dialDatagrams: (_address, port) => {
        const socket = createSocket("udp4");
        socket.connect(port, "127.0.0.1");
        return socket;
      },
      secrets: new Secrets(secrets),
      ...(isStandIn !== undefined && { isStandIn }),
      ...(intercept !== undefined && { intercept }),
      resume: () => cable.resume(),
    });
    cable.on("error", () => cable.destroy());
    cable.on("data", (chunk: Buffer) => this.gateway.receive(chunk) || cable.pause());
    let stdout = "";
    let stderr = "";
    this.child.stdout!.on("data", (chunk: Buffer) => (stdout += chunk.toString()));
    this.child.stderr!.on("data", (chunk: Buffer) => (stderr += chunk.toString()));
    this.ended = once(this.child, "close").then(([status]: (number | null)[]) => {
      this.gateway.close();
      return { status: status ?? null, stdout, stderr };
    });
  }
}
