// Networks for tests to play with, made of network namespaces: the host's, in which pyro runs, with a LAN (10.99.0.0/30) behind which lies an internet of our
// own (network-servers.mjs). Nothing in it reaches the real one, and nothing of the real host is seen in it.
import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { collect, type PyroOptions, type PyroResult } from "./pyro.js";
import { main } from "../built.js";
import { said } from "./guest.js";

/** The host's address on its LAN, and that of a neighbour there. */
export const hostLan = "10.99.0.1";
export const neighbour = "10.99.0.2";
export const web = "93.184.216.34";
export const other = "93.184.216.35";

export interface World {
  /** Has www/ for the web servers, and cert.pem. */
  directory: string;
  /** pyro as it runs on that host. */
  pyro(args: readonly string[], options?: PyroOptions): Promise<PyroResult>;
  start(args: readonly string[], env?: Record<string, string>): ChildProcess;
  /** Any program on that host. */
  onHost(command: string, ...args: readonly string[]): ChildProcess;
  /** Any program where the servers are. It has to end with its standard input. */
  onInternet(command: string, ...args: readonly string[]): ChildProcess;
  /** What the servers were asked, since the last look. */
  asked(): string[];
  end(): void;
}

// The second namespace is there when the first process in it runs; its card is made in the first one and moved.
const script = `
set -e
ip link set lo up
unshare --net sleep infinity & inner=$!
until [ "$(readlink /proc/$inner/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.01; done
ip link add lan type veth peer name internet netns $inner
ip addr add ${hostLan}/30 dev lan
ip link set lan up
ip route add default via ${neighbour}
nsenter --target $inner --net sh -ec '
  ip link set lo up
  ip addr add ${neighbour}/30 dev internet
  ip link set internet up
  ip route add default via ${hostLan}
  for address in ${web} ${other} 8.8.8.8 9.9.9.9 169.254.169.254 192.168.77.1 172.20.0.1 100.100.100.200 168.63.129.16; do ip addr add $address/32 dev lo; done'
ip route add 169.254.0.0/16 via ${neighbour}
echo "ready $inner"
read -r ignored || true
kill $inner
`;

/** Undefined, with a reason, where namespaces can't be had. */
export async function makeWorld(): Promise<World | string> {
  const user = process.getuid!() === 0 ? [] : ["--user", "--map-root-user"];
  const holder = spawn("unshare", [...user, "--net", "bash", "-c", script], { stdio: ["pipe", "pipe", "pipe"] });
  let complaint = "";
  holder.stderr.on("data", (chunk: Buffer) => (complaint += chunk.toString()));
  const ready = await said(holder.stdout, /ready (\d+)\n/).catch(() => undefined);
  if (ready === undefined) return `network namespaces can't be made here: ${complaint.trim()}`;
  const inner = /ready (\d+)/.exec(ready)![1]!;
  const enter = (pid: number | string) => ["--target", String(pid), "--net", ...(user.length === 0 ? [] : ["--user", "--preserve-credentials"])];
  const directory = mkdtempSync(join(tmpdir(), "pyro-world-"));
  mkdirSync(join(directory, "www"));
  makeCertificates(directory);
  const onInternet = (command: string, ...args: readonly string[]) => spawn("nsenter", [...enter(inner), command, ...args], { stdio: ["pipe", "pipe", "inherit"] });
  const servers = onInternet(process.execPath, new URL("network-servers.mjs", import.meta.url).pathname, directory);
  await said(servers.stdout, /ready\n/);
  let lines = "";
  servers.stdout.on("data", (chunk: Buffer) => (lines += chunk.toString()));
  const settings = { PYRO_NAME_SERVERS: "9.9.9.9", SSL_CERT_FILE: join(directory, "ca.pem") };
  const onHost = (command: string, args: readonly string[], env: Record<string, string> = {}) => spawn("nsenter", [...enter(holder.pid!), command, ...args], { stdio: ["pipe", "pipe", "pipe"], env: { ...process.env, ...settings, ...env } });
  const start = (args: readonly string[], env?: Record<string, string>) => onHost(process.execPath, [main, ...args], env);
  return {
    directory,
    start,
    pyro: (args, options = {}) => collect(start(args, options.env), options),
    onHost: (command, ...args) => onHost(command, args),
    onInternet,
    asked: () => {
      const all = lines.split("\n").filter((line) => line !== "");
      lines = "";
      return all;
    },
    end: () => {
      servers.stdin.end();
      holder.stdin.end("\n");
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

/** An authority and a certificate of it for all names that the servers have. */
function makeCertificates(directory: string): void {
  const openssl = (...args: string[]) => execFileSync("openssl", args, { cwd: directory, stdio: "ignore" });
  const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
  openssl("req", "-x509", ...key, "-keyout", "ca-key.pem", "-out", "ca.pem", "-subj", "/CN=test authority", "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign");
  openssl("req", "-x509", ...key, "-keyout", "key.pem", "-out", "cert.pem", "-subj", "/CN=example.com", "-CA", "ca.pem", "-CAkey", "ca-key.pem", "-addext", "basicConstraints=critical,CA:FALSE", "-addext", "subjectAltName=DNS:*.example.com,DNS:*.sub.example.com");
}
