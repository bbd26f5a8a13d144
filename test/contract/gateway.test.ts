// The network gateway as the program that is shipped, and the words that it is spoken to with.
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { connect, createServer, type AddressInfo, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { GatewayControl, connectGateway } from "../../src/net/index.js";

const program = new URL("../../dist/gateway.cjs", import.meta.url).pathname;
const policy = { mode: "public" };
const secret = { name: "TOKEN", host: "api.example.org", value: "s3cr3t", placeholder: "pyro-secret-0123456789abcdef" };

/** As the keeper does: Node can't give away a listening socket without answering on it as well. */
const openListener = `
import os, socket, sys
listener = socket.socket(socket.AF_UNIX); listener.bind(sys.argv[1] + ".new"); listener.listen(16); os.rename(sys.argv[1] + ".new", sys.argv[1]); os.dup2(listener.fileno(), 5); os.set_inheritable(5, True)
os.execv(sys.argv[2], sys.argv[2:])`;

let directory: string;
let gateway: ChildProcess;
let control: GatewayControl;
let exited: Promise<unknown>;

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), "pyro-gateway-"));
  gateway = spawn("python3", ["-c", openListener, join(directory, "net"), process.execPath, program], { stdio: ["ignore", "inherit", "inherit", "pipe", "pipe"] });
  exited = once(gateway, "close");
  control = new GatewayControl(gateway.stdio[4] as Socket);
  await expect.poll(() => existsSync(join(directory, "net"))).toBe(true);
});

afterEach(async () => {
  control.close(); // before it is configured, its maker's end is its own
  (gateway.stdio[3] as Socket).destroy();
  await exited;
  rmSync(directory, { recursive: true });
});

test("it is configured once, by its maker alone, and ends with its guest", async () => {
  const other = await connectGateway(directory);
  await expect(other.configure({ vm_id: "vm", policy })).rejects.toMatchObject({ code: "INVALID_ARGUMENT", message: "The gateway has no such method." });
  await expect(other.info()).rejects.toMatchObject({ code: "INVALID_STATE", message: "The gateway is not configured yet." });
  await expect(control.configure({ vm_id: "vm", policy: { mode: "all" } })).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
  expect(await control.configure({ vm_id: "vm", policy })).toEqual({ published: [] });
  await expect(control.configure({ vm_id: "vm", policy })).rejects.toMatchObject({ code: "INVALID_STATE" });
  expect(await other.info()).toEqual({
    policy,
    published_ports: [],
    counters: { connections_open: 0, connections_total: 0, refused_total: 0, dns_queries: 0, bytes_sent: 0, bytes_received: 0 },
    last_refusals: [],
  });
  const closed = once(other, "close");
  (gateway.stdio[3] as Socket).destroy();
  expect(await exited).toEqual([0, null]);
  await closed;
  await expect(other.info()).rejects.toMatchObject({ code: "VMM_EXITED", message: "The VM's network gateway ended." });
  await expect(connectGateway(join(directory, "none"))).rejects.toMatchObject({ code: "NOT_FOUND" });
});

test("ports are published, listed and closed, and events told; the audit is a file", async () => {
  const file = join(directory, "audit");
  const taken = createServer().listen(0, "127.0.0.1");
  await once(taken, "listening");
  const { port } = taken.address() as AddressInfo;
  await expect(control.configure({ vm_id: "vm", policy, publish: [{ protocol: "tcp", host_ip: "127.0.0.1", host_port: port, guest_port: 80 }] })).rejects.toMatchObject({ code: "EXISTS", message: `Port ${port} of 127.0.0.1 is taken.` });
  taken.close();
  const { published } = await control.configure({ vm_id: "vm", policy, audit_file: file, publish: [{ protocol: "tcp", host_ip: "127.0.0.1", host_port: 0, guest_port: 80 }] });
  expect(published).toMatchObject([{ protocol: "tcp", host_ip: "127.0.0.1", guest_port: 80 }]);
  expect(published[0]!.host_port).toBeGreaterThan(0);
  await control.listen();
  const event = once(control, "event");
  const other = await connectGateway(directory);
  const heard: unknown[] = [];
  other.on("event", (each) => heard.push(each));
  await other.listen(["refused"]);
  const udp = await control.publish({ protocol: "udp", host_ip: "127.0.0.1", host_port: 0, guest_port: 53 });
  expect((await event)[0]).toMatchObject({ event: "publish", type: "publish", protocol: "udp", address: "127.0.0.1", port: udp.host_port, guest_port: 53 });
  expect((await control.info()).published_ports).toEqual([...published, udp]);
  await other.info(); // answered behind what it was told
  expect(heard).toEqual([]);
  other.close();
  await control.unpublish(udp);
  await expect(control.unpublish(udp)).rejects.toMatchObject({ code: "NOT_FOUND" });
  await expect(control.publish({ protocol: "tcp", host_ip: "::1", host_port: 0, guest_port: 80 })).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
  await expect(control.publish({ protocol: "tcp", host_ip: "127.0.0.1", host_port: 0, guest_port: 0 })).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
  expect(readFileSync(file, "utf8").trim().split("\n").map((line) => JSON.parse(line) as object)).toMatchObject([{ type: "publish", protocol: "tcp" }, { type: "publish", protocol: "udp" }]);
});

test("a policy is replaced, or refused and the old one stays", async () => {
  await control.configure({ vm_id: "vm", policy });
  const other = { mode: "allow_list", allow_hosts: ["example.org:443"] };
  await control.setPolicy(other);
  expect((await control.info()).policy).toEqual(other);
  await expect(control.setPolicy({ mode: "public", allow_nets: ["10.0.0.0/33"] })).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
  expect((await control.info()).policy).toEqual(other);
});

test("secrets bring an authority, and what can't be used is refused without its value", async () => {
  await expect(control.configure({ vm_id: "vm", policy, secrets: [{ ...secret, value: "s3cr3t\n" }] })).rejects.toMatchObject({ code: "INVALID_ARGUMENT", message: expect.not.stringContaining("s3cr3t") as string });
  await expect(control.configure({ vm_id: "vm", policy, secrets: [secret], ca_file: join(directory, "none") })).rejects.toMatchObject({ code: "DENIED" });
  const { ca_certificate: certificate } = await control.configure({ vm_id: "vm", policy, secrets: [secret] });
  expect(certificate).toMatch(/^-----BEGIN CERTIFICATE-----\n/);
});

test("who speaks no JSON, or too much, or comes too often, is not listened to, and nobody else is hurt", async () => {
  await control.configure({ vm_id: "vm", policy });
  const path = join(directory, "net");
  for (const words of ["hello\n", "{}{}\n", "x".repeat(1_100_000)]) {
    const socket = connect(path);
    socket.write(words);
    await closed(socket);
  }
  const odd = connect(path);
  odd.write('null\n{"id":7}\n{"id":8,"method":"__proto__"}\n{"id":9,"method":"info","params":[]}\n');
  let answers = "";
  for await (const chunk of odd) if ((answers += String(chunk)).split("\n").length > 4) break;
  expect(answers.trim().split("\n").map((line) => (JSON.parse(line) as { id?: number; error: { code: string } }).error.code)).toEqual(["INVALID_ARGUMENT", "INVALID_ARGUMENT", "INVALID_ARGUMENT", "INVALID_ARGUMENT"]);
  const many = Array.from({ length: 15 }, () => connect(path));
  await closed(connect(path)); // maxClients, the maker included
  for (const each of many) each.destroy();
  expect((await control.info()).published_ports).toEqual([]);
  expect(existsSync(path)).toBe(true);
});

function closed(socket: Socket): Promise<void> {
  return new Promise((resolve) => void socket.on("error", () => {}).once("close", () => resolve()));
}
