// Secrets that the guest never sees: real TLS and HTTP clients in a namespace, a real server behind the gateway.
import { X509Certificate } from "node:crypto";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer as createHttpServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { createServer } from "node:https";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createSecureContext } from "node:tls";
import { afterAll, describe, expect, test } from "vitest";
import { Audit, type AuditRecord } from "../../src/net/audit.js";
import { parseRequestHead, type RequestHead } from "../../src/net/inspect/request-head.js";
import { Judge } from "../../src/net/judge.js";
import { Authority } from "../../src/net/secrets/authority.js";
import { intercept } from "../../src/net/secrets/interception.js";
import { Secrets, checkSecrets } from "../../src/net/secrets/secrets.js";
import { allowAll } from "./allow-all.js";
import { LinuxGuest, whyNoLinuxGuest } from "./linux-guest.js";

const directory = mkdtempSync(join(tmpdir(), "pyro-secrets-"));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

const placeholder = "pyro-secret-0123456789abcdef";
const secrets = [{ name: "TOKEN", host: "api.example.org", value: "s3cr3t-välue", placeholder }];
const authority = new Authority("test");
const world = new Authority("the world's");
writeFileSync(join(directory, "ca.pem"), authority.certificate);

const addresses: Record<string, string> = { "api.example.org": "203.0.113.5", "other.example.org": "203.0.113.6" };

async function serve(secure: boolean, name = "api.example.org"): Promise<{ server: Server; port: number; heads: string[] }> {
  const heads: string[] = [];
  const take = (request: IncomingMessage, response: ServerResponse) => {
    let body = 0;
    request.on("data", (chunk: Buffer) => (body += chunk.length));
    request.on("end", () => {
      heads.push(`${request.method} ${request.url} ${Buffer.from(request.headers.authorization ?? "none", "latin1").toString("utf8")} ${body}`);
      response.end("x".repeat(300_000));
    });
  };
  const server = secure ? createServer({ SNICallback: (_name, done) => done(null, world.contextFor(name) ?? createSecureContext()) }, take) : createHttpServer(take);
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return { server, port: (server.address() as { port: number }).port, heads };
}

async function inGuest(script: string): Promise<{ printed: string; guest: LinuxGuest }> {
  const guest = new LinuxGuest(["python3", "-c", `import ssl, http.client, socket, base64\ncontext = ssl.create_default_context(cafile="${directory}/ca.pem")\n${script}`], {
    secrets,
    intercept: (interception) => intercept({ contextFor: (host) => authority.contextFor(host), trusted: [world.certificate] }, interception),
    resolve: async (name) => {
      const address = addresses[name];
      return address === undefined ? { code: 3, records: [], addresses: [] } : { code: 0, addresses: [address], records: [{ type: 1, ttlSeconds: 5, data: Buffer.from(address.split(".").map(Number)) }] };
    },
  });
  const { stdout, stderr } = await guest.ended;
  expect(stderr).toBe("");
  return { printed: stdout, guest };
}

describe.skipIf(whyNoLinuxGuest !== undefined)("secrets", () => {
  test("go into the headers of TLS requests to their host, plain and in Basic credentials, and are on record by name", async () => {
    const { server, port, heads } = await serve(true);
    const { printed, guest } = await inGuest(`
c = http.client.HTTPSConnection("api.example.org", ${port}, context=context)
for auth in ("Bearer ${placeholder}", "Basic " + base64.b64encode(b"git:${placeholder}").decode(), "Bearer mine"):
  c.request("POST", "/x", body=b"y" * 200000, headers={"Authorization": auth})
  print(len(c.getresponse().read()))
print(c.sock.version(), c.sock.selected_alpn_protocol())
c.close()
import time
while any(line.split()[3] != "06" for line in open("/proc/net/tcp").readlines()[1:]): time.sleep(0.02) # until both sides have closed it (TIME_WAIT)`);
    expect(printed).toBe("300000\n300000\n300000\nTLSv1.3 None\n");
    expect(heads).toEqual(["POST /x Bearer s3cr3t-välue 200000", `POST /x Basic ${Buffer.from("git:s3cr3t-välue").toString("base64")} 200000`, "POST /x Bearer mine 200000"]);
    expect(guest.records.filter(({ type }) => type === "secret")).toMatchObject([{ secret: "TOKEN", name: "api.example.org", port }, { secret: "TOKEN" }]);
    expect(guest.records.filter(({ type }) => type === "close").filter(({ reason }) => reason === "the VM ended")).toEqual([]);
    expect(JSON.stringify(guest.records)).not.toContain("s3cr3t");
    expect(guest.audit.lastRefusals).toEqual([]);
    server.close();
  });

  test("go into plain HTTP too, and nowhere else: not to another host, in a body, over a bare connection, in a name", async () => {
    const { server, port, heads } = await serve(false);
    const { printed, guest } = await inGuest(`
def ask(host, **more):
  c = http.client.HTTPConnection(host, ${port}, timeout=200)
  try:
    c.request("GET", "/", **more); print(len(c.getresponse().read()))
  except (OSError, http.client.HTTPException) as e: print(e.__class__.__name__)
ask("api.example.org", headers={"Authorization": "Bearer ${placeholder}"})
ask("other.example.org", headers={"Authorization": "Bearer ${placeholder}"})
ask("other.example.org", headers={"Authorization": "Basic " + base64.b64encode(b"${placeholder}:").decode()})
ask("other.example.org", headers={"Host": "api.example.org", "Authorization": "Bearer ${placeholder}"})
ask("other.example.org", body=b"z" * 3000 + b"${placeholder}")
s = socket.create_connection(("other.example.org", ${port})); s.sendall(b"\\0not http ${placeholder.slice(0, 10)}")
try:
  s.recv(1); s.sendall(b"${placeholder.slice(10)}"); print(s.recv(10))
except OSError as e: print(e.__class__.__name__)
try: socket.gethostbyname("${placeholder}.example.org")
except OSError as e: print(e.__class__.__name__)`);
    expect(printed.split("\n").slice(0, 5)).toEqual(["300000", "ConnectionResetError", "ConnectionResetError", "ConnectionResetError", "ConnectionResetError"]);
    expect(printed).toMatch(/gaierror\n$/);
    expect(heads).toEqual(["GET / Bearer s3cr3t-välue 0"]);
    const reasons = guest.audit.lastRefusals.map(({ rule }) => rule);
    expect(reasons.filter((rule) => rule !== "secret")).toEqual([]);
    expect(reasons.length).toBeGreaterThanOrEqual(5);
    server.close();
  });

  test("are not given to a server that can't prove its name", async () => {
    const { server, port, heads } = await serve(true, "impostor.example.org");
    const { printed, guest } = await inGuest(`
c = http.client.HTTPSConnection("api.example.org", ${port}, context=context)
try: c.request("GET", "/", headers={"Authorization": "Bearer ${placeholder}"}); print(c.getresponse().status)
except OSError as e: print(e.__class__.__name__)`);
    expect(printed).toBe("ConnectionResetError\n");
    expect(heads).toEqual([]);
    expect(guest.audit.lastRefusals).toMatchObject([{ protocol: "tls", name: "api.example.org", rule: "secret" }]);
    server.close();
  });

  test("are not asked of other hosts' TLS, which passes unseen", async () => {
    const { server, port } = await serve(true, "other.example.org");
    const { printed } = await inGuest(`
open("${directory}/world.pem", "w").write("""${world.certificate}""")
c = http.client.HTTPSConnection("other.example.org", ${port}, context=ssl.create_default_context(cafile="${directory}/world.pem"))
c.request("GET", "/"); print(len(c.getresponse().read()))`);
    expect(printed).toBe("300000\n");
    server.close();
  });
});

test("the authority's certificates are what strict clients want", () => {
  const certificate = new X509Certificate(authority.certificate);
  expect(certificate.ca).toBe(true);
  expect(certificate.verify(certificate.publicKey)).toBe(true);
  expect(certificate.subject).toBe("CN=pyro VM test");
  expect(new Authority("x".repeat(300)).certificate).toContain("BEGIN CERTIFICATE");
});

test("a secret for two hosts goes to both, and to no third", () => {
  const both = new Secrets([{ ...secrets[0]!, value: "one" }, { ...secrets[0]!, host: "b.example.org", value: "one" }]);
  const put = (host: string) => {
    const head = parseRequestHead(Buffer.from(`GET /${placeholder} HTTP/1.1\r\nHost: ${host}\r\nAuthorization: Bearer ${placeholder}\r\n\r\n`)) as RequestHead;
    return { ...both.putIn(head, host), sent: head.headers[1]![1] };
  };
  for (const host of ["api.example.org", "b.example.org"]) {
    expect(put(host)).toEqual({ used: ["TOKEN"], sent: "Bearer one" });
    expect(both.watcher(host)).toBe(undefined);
  }
  expect(put("c.example.org")).toEqual({ used: [], misplaced: "TOKEN", sent: `Bearer ${placeholder}` });
  expect(both.watcher("c.example.org")?.find(Buffer.from(placeholder))).toBe("TOKEN");
});

test("a secret goes in the clear where HTTP is spoken, and not on the port of HTTPS", () => {
  const records: AuditRecord[] = [];
  const sent = (port: number) => {
    const head = parseRequestHead(Buffer.from(`GET / HTTP/1.1\r\nHost: api.example.org\r\nAuthorization: Bearer ${placeholder}\r\n\r\n`)) as RequestHead;
    const judge = new Judge({ hook: () => allowAll, audit: new Audit(undefined, (record) => records.push(record)), secrets: new Secrets(secrets), address: "203.0.113.5", port, standIn: false, names: () => ["api.example.org"] });
    return judge.head(head).allowed && Buffer.from(head.headers[1]![1], "latin1").toString("utf8");
  };
  expect([sent(80), sent(8080), sent(443)]).toEqual(["Bearer s3cr3t-välue", "Bearer s3cr3t-välue", false]);
  expect(records.map(({ type, rule }) => [type, rule])).toEqual([["secret", undefined], ["secret", undefined], ["refused", "secret"]]);
});

test("a secret that can't be used is refused, and its value not shown", () => {
  const [good] = secrets;
  expect(() => checkSecrets([{ ...good!, value: "a\nb" }])).toThrow("Secret TOKEN can't be put into a header: it has a control character in it");
  expect(() => checkSecrets([{ ...good!, value: "" }])).toThrow("it is empty");
  expect(() => checkSecrets([{ ...good!, placeholder: "short" }])).toThrow("16 to 256 printable characters");
  expect(() => checkSecrets(Array.from({ length: 65 }, () => good!))).toThrow("At most 64 secrets");
});
