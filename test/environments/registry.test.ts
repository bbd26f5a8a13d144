/** Pulling from a real registry, over a network that fails in all the ways there are. */
import { randomBytes } from "node:crypto";
import { access, mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import { findProgram, runChild } from "../../src/base/child.js";
import { exportEnvironment, holdEnvironment, inspectEnvironment, listEnvironments, openEnvironment, pruneEnvironments, pullEnvironment, removeEnvironment, type PullProgress } from "../../src/environments/index.js";
import { readErofs } from "./erofs-reader.js";
import { makeKernel, seeded, useTemporary } from "./fixtures.js";
import { Layout, mediaTypes, sha256 } from "./image-maker.js";
import { makeCertificate, push, startFront, startProxy, startRegistry, type Front, type RealRegistry } from "./registry-server.js";
import { patience } from "../../src/environments/registry/http.js";
import { archive } from "./tar-maker.js";

const guest = vi.hoisted(() => ({ path: "" }));
vi.mock("../../src/base/paths.js", async (original) => {
  const real = await original<typeof import("../../src/base/paths.js")>();
  return { ...real, nativeProgram: (name: "pyro-guest" | "pyro-keeper") => (name === "pyro-guest" ? guest.path : real.nativeProgram(name)) };
});

// Pauses between tries are short; that one was asked for is seen in what was waited for.
const paused = vi.hoisted(() => [] as number[]);
vi.mock("../../src/base/deadline.js", async (original) => {
  const real = await original<typeof import("../../src/base/deadline.js")>();
  return { ...real, sleep: (ms: number, signal?: AbortSignal) => (paused.push(ms), real.sleep(Math.min(ms, 20), signal)) };
});

const temporary = useTemporary();
const before = { ...process.env };
let registry: RealRegistry;
let front: Front;
let layout: Layout;
let count = 0;
let kernel: string;
let missing: string | undefined;

/** Bytes that no compression makes fewer of, so that what is on the wire is as long as it is here. */
const noise = (seed: number, bytes: number) => {
  const random = seeded(seed);
  return Buffer.from(Array.from({ length: bytes }, () => random(256)));
};
const lower = archive({ name: "etc/", type: "5" }, { name: "etc/hostname", data: "lower" }, { name: "gone", data: "x" }, { name: "noise", data: noise(1, 300_000) });
const upper = archive({ name: ".wh.gone" }, { name: "etc/hostname", data: "upper" });

beforeAll(async () => {
  for (const program of ["docker-registry", "skopeo", "openssl"]) await findProgram(program).catch(() => (missing = program));
  if (missing !== undefined) return;
  registry = await startRegistry(join(temporary.path(), "registry"));
  front = await startFront(registry.host);
  layout = new Layout(join(temporary.path(), "layout"));
  await layout.image([lower, upper], { tag: "two", compress: "gzip", config: { Env: ["A=1"], Cmd: ["/bin/true"] } });
  await layout.image([lower], { tag: "one", compress: "gzip" });
  const [ours, theirs] = [await layout.image([upper], { compress: "gzip" }), await layout.image([lower], { compress: "gzip", platform: { os: "linux", architecture: "arm64" } })];
  layout.manifests.splice(-2);
  layout.name(await layout.blob(JSON.stringify({ schemaVersion: 2, mediaType: mediaTypes.index, manifests: [theirs, ours] }), mediaTypes.index), "many");
  await layout.finish();
  for (const tag of ["two", "one", "many"]) await push(layout.path, tag, `${registry.host}/team/image:${tag}`);
  kernel = await makeKernel(temporary.path());
});

afterAll(async () => {
  process.env = before;
  await front?.close();
  await registry?.close();
});

beforeEach(async ({ skip }) => {
  skip(missing !== undefined, `${missing} is not installed`);
  process.env = { ...before, XDG_CACHE_HOME: join(temporary.path(), `cache${++count}`), PYRO_KERNEL_DIR: kernel, DOCKER_CONFIG: join(temporary.path(), "docker") };
  for (const name of ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"]) delete process.env[name];
  guest.path = join(temporary.path(), "guest");
  await writeFile(guest.path, "the guest program");
});

afterEach(async () => {
  if (front === undefined) return;
  front.fault = undefined;
  front.change = undefined;
  front.asked.length = 0;
  front.headers.length = 0;
  await rm(join(temporary.path(), "docker"), { recursive: true, force: true });
});

const image = (which = ":two") => `${front.host}/team/image${which}`;
const blobsAsked = () => front.asked.filter((each) => each.includes("/blobs/"));
async function names(name: string): Promise<string[]> {
  return [...readErofs((await openEnvironment(name))!.rootDisk).keys()].sort();
}
async function nothingInstalled(): Promise<void> {
  expect((await listEnvironments()).filter((each) => each.installed)).toEqual([]);
}

test("by tag, and again: nothing but the manifest is asked for", async () => {
  const told: PullProgress[] = [];
  const pulled = await pullEnvironment(image(), { onProgress: (each) => told.push(each) });
  expect(pulled).toMatchObject({ name: image(), installed: true, source: image(), distribution: "oci", version: "two" });
  expect(await names(image())).toEqual(["", "etc", "etc/hostname", "noise"]);
  expect(readErofs((await openEnvironment(image()))!.rootDisk).get("etc/hostname")!.content!.toString()).toBe("upper");
  expect((await openEnvironment(image()))!.config).toEqual({ env: { A: "1" }, cmd: ["/bin/true"] });
  expect((await inspectEnvironment(image())).image).toMatchObject({ reference: image(), env: ["A=1"], cmd: ["/bin/true"], layers: [{ digest: sha256(gzipSync(lower, { level: 1 })) }, { digest: sha256(gzipSync(upper, { level: 1 })) }] });
  expect(new Set(told.flatMap((each) => each.layer?.digest ?? []))).toEqual(new Set([sha256(gzipSync(lower, { level: 1 })), sha256(gzipSync(upper, { level: 1 }))]));
  expect(blobsAsked()).toHaveLength(3);
  front.asked.length = 0;
  await pullEnvironment(image());
  expect(front.asked).toEqual(["GET /v2/team/image/manifests/two"]);
});

test("a second image fetches only what it does not share", async () => {
  await pullEnvironment(image(":one"));
  front.asked.length = 0;
  await pullEnvironment(image(":two"));
  expect(blobsAsked()).toHaveLength(2); // its configuration and its upper layer
});

test("two at once that share a layer fetch it once", async () => {
  const [lowerDigest, upperDigest] = [lower, upper].map((tar) => sha256(gzipSync(tar, { level: 1 })));
  front.fault = async (incoming) => {
    if (!incoming.url!.endsWith(lowerDigest!)) return false;
    while (!front.asked.some((each) => each.includes(upperDigest!))) await new Promise((resolve) => setTimeout(resolve, 10)); // only the second one asks for that
    await new Promise((resolve) => setTimeout(resolve, 300)); // time for it to ask for this too, if it would
    return false;
  };
  await Promise.all([pullEnvironment(image(":one")), pullEnvironment(image(":two"))]);
  expect(blobsAsked().filter((each) => each.includes(lowerDigest!))).toHaveLength(1);
  expect([await names(image(":one")), await names(image(":two"))]).toEqual([["", "etc", "etc/hostname", "gone", "noise"], ["", "etc", "etc/hostname", "noise"]]);
});

test("by digest: what is installed is not asked for again", async () => {
  await pullEnvironment(image());
  const { manifestDigest } = (await inspectEnvironment(image())).image!;
  const pinned = image(`@${manifestDigest}`);
  await pullEnvironment(pinned);
  front.asked.length = 0;
  await pullEnvironment(pinned);
  expect(front.asked).toEqual([]);
  await expect(pullEnvironment(image(`@sha256:${"0".repeat(64)}`))).rejects.toMatchObject({ code: "NOT_FOUND" });
});

test("an index of several platforms", async () => {
  await pullEnvironment(image(":many"));
  expect(await names(image(":many"))).toEqual(["", "etc", "etc/hostname"]);
  await expect(pullEnvironment(image(":many"), { platform: "linux/arm64" })).rejects.toMatchObject({ code: "UNSUPPORTED" });
});

test("what isn't there", async () => {
  await expect(pullEnvironment(image(":none"))).rejects.toMatchObject({ code: "NOT_FOUND", message: expect.stringContaining("none") });
  await nothingInstalled();
});

test("a tag that moves is followed; what was there stays if that fails", async () => {
  await pullEnvironment(image());
  const first = (await openEnvironment(image()))!.digest;
  front.fault = (incoming) => (incoming.url = incoming.url!.replace("manifests/two", "manifests/one"), false);
  front.change = () => ({ body: Buffer.from("x") });
  await expect(pullEnvironment(image())).rejects.toMatchObject({ code: "REGISTRY" });
  expect((await openEnvironment(image()))!.digest).toBe(first);
  front.change = undefined;
  await pullEnvironment(image());
  expect(await names(image())).toEqual(["", "etc", "etc/hostname", "gone", "noise"]);
});

describe("a blob", () => {
  const isLower = (incoming: { url?: string | undefined }) => incoming.url!.endsWith(sha256(gzipSync(lower, { level: 1 })));

  test("that breaks off in the middle is resumed", async () => {
    let breaks = 2;
    front.change = (body, incoming) => (isLower(incoming) && breaks-- > 0 ? { body: body.subarray(0, 100_000), cut: true } : { body });
    await pullEnvironment(image());
    const ranges = front.asked.filter((each) => isLower({ url: each.split(" ")[1] }));
    expect(ranges[0]).not.toContain("bytes=");
    expect(ranges.slice(1).every((each) => /bytes=[1-9][0-9]*-$/.test(each))).toBe(true);
    expect(ranges).toHaveLength(3);
    expect(await names(image())).toEqual(["", "etc", "etc/hostname", "noise"]);
  });

  test("that a server without ranges sends from the beginning", async () => {
    let breaks = 1;
    front.fault = (incoming) => (delete incoming.headers.range, false);
    front.change = (body, incoming) => (isLower(incoming) && breaks-- > 0 ? { body: body.subarray(0, 100_000), cut: true } : { body });
    await pullEnvironment(image());
    expect(await names(image())).toEqual(["", "etc", "etc/hostname", "noise"]);
  });

  test.each([
    ["says that it has no such part", 416, {}],
    ["takes it for nonsense", 400, {}],
    ["sends another part", 206, { "content-range": "bytes 5-9/300000" }],
    ["does not say which part it sends", 206, {}],
  ])("that a server which, asked for a part, %s sends from the beginning", async (_what, status, headers) => {
    front.fault = (incoming, outgoing) => incoming.headers.range !== undefined && answer(outgoing, status, headers as Record<string, string>, "12345");
    let breaks = 1;
    front.change = (body, incoming) => (isLower(incoming) && breaks-- > 0 ? { body: body.subarray(0, 100_000), cut: true } : { body });
    await pullEnvironment(image());
    expect(front.asked.filter((each) => isLower({ url: each.split(" ")[1] })).map((each) => each.includes("bytes="))).toEqual([false, true, false]);
    expect(await names(image())).toEqual(["", "etc", "etc/hostname", "noise"]);
  });

  test("that was fetched in part by a pull that ended goes on from there", async () => {
    const abort = new AbortController();
    front.change = (body, incoming) => {
      if (!isLower(incoming)) return { body };
      if (incoming.headers.range !== undefined) abort.abort(); // the first part has come, and it goes on
      return { body: body.subarray(0, 100_000), cut: true };
    };
    await expect(pullEnvironment(image(), { signal: abort.signal })).rejects.toMatchObject({ code: "CANCELLED" });
    await nothingInstalled();
    front.change = undefined;
    front.asked.length = 0;
    await pullEnvironment(image());
    expect(front.asked.filter((each) => isLower({ url: each.split(" ")[1] }))).toEqual([expect.stringMatching(/bytes=[1-9][0-9]*-$/)]);
  });

  test.each([
    ["changed", (body: Buffer) => ({ body: Buffer.concat([body.subarray(0, 5000), Buffer.from("x"), body.subarray(5001)]) }), "is not that"],
    ["with more than it should have", (body: Buffer) => ({ body: Buffer.concat([body, Buffer.from("x")]) }), "bytes for sha256:"],
    ["with more than it should have, and does not say so before,", (body: Buffer) => ({ body: Buffer.concat([body, Buffer.alloc(100_000)]), unsaid: true }), "more than the"],
  ])("that comes %s is refused, and nothing counts as installed", async (_what, change, message) => {
    front.change = (body, incoming) => (isLower(incoming) ? change(body) : { body });
    await expect(pullEnvironment(image())).rejects.toMatchObject({ code: "REGISTRY", message: expect.stringContaining(message) });
    await nothingInstalled();
    expect(await readdir(join(process.env["XDG_CACHE_HOME"]!, "pyro-mcp/tmp"))).toEqual([]);
    front.change = undefined;
    await pullEnvironment(image());
  });

  test("that never comes whole is given up", async () => {
    front.change = (body, incoming) => (isLower(incoming) ? { body: body.subarray(0, 0), cut: true } : { body });
    await expect(pullEnvironment(image())).rejects.toMatchObject({ code: "REGISTRY" });
    await nothingInstalled();
  });

  test("elsewhere is fetched there, without who we are", async () => {
    const elsewhere = await startFront(registry.host);
    try {
      await logIn(front.host, "agent:secret");
      front.fault = (incoming, outgoing) => {
        if (incoming.headers.authorization === undefined) return answer(outgoing, 401, { "www-authenticate": 'Basic realm="x"' });
        if (!incoming.url!.includes("/blobs/")) return false;
        return answer(outgoing, 307, { location: `http://${elsewhere.host}${incoming.url}` });
      };
      await pullEnvironment(image());
      expect(elsewhere.asked).toHaveLength(3);
      expect(elsewhere.headers.map((each) => each.authorization)).toEqual([undefined, undefined, undefined]);
      expect(front.headers.some((each) => each.authorization === `Basic ${Buffer.from("agent:secret").toString("base64")}`)).toBe(true);
    } finally {
      await elsewhere.close();
    }
  });

  test("that redirects for ever", async () => {
    front.fault = (incoming, outgoing) => incoming.url!.includes("/blobs/") && answer(outgoing, 307, { location: incoming.url! });
    await expect(pullEnvironment(image())).rejects.toMatchObject({ code: "REGISTRY", message: expect.stringContaining("maxRedirects") });
  });
});

test("a layer that is said to have no bytes, and one that fails while another is on its way", async () => {
  const wrong = new Layout(join(temporary.path(), "wrong"));
  const { digest: layer } = await wrong.blob(gzipSync(lower), mediaTypes.gzip);
  const config = await wrong.blob(JSON.stringify({ os: "linux", architecture: "amd64", rootfs: { type: "layers", diff_ids: [sha256(lower)] } }), mediaTypes.config);
  wrong.name(await wrong.blob(JSON.stringify({ schemaVersion: 2, config, layers: [{ mediaType: mediaTypes.gzip, digest: layer, size: 0 }] }), mediaTypes.manifest), "empty");
  await wrong.finish();
  await expect(pullEnvironment(`${wrong.path}:empty`)).rejects.toMatchObject({ code: "REGISTRY", message: expect.stringContaining("more than the 0 bytes") });
  // The upper layer waits for ever, and what is told is what was wrong with the lower one.
  const [lowerDigest, upperDigest] = [lower, upper].map((tar) => sha256(gzipSync(tar, { level: 1 })));
  front.fault = (incoming) => incoming.url!.endsWith(upperDigest!);
  front.change = (body, incoming) => ({ body: incoming.url!.endsWith(lowerDigest!) ? Buffer.concat([body, body]) : body });
  await expect(pullEnvironment(image())).rejects.toMatchObject({ code: "REGISTRY", message: expect.stringContaining("more than the") });
  await nothingInstalled();
});

test("what was kept and is damaged is fetched again", async () => {
  await pullEnvironment(image(":one"));
  const digest = sha256(gzipSync(lower, { level: 1 }));
  const path = join(process.env["XDG_CACHE_HOME"]!, "pyro-mcp/blobs/sha256", digest.slice(7));
  await writeFile(path, Buffer.alloc((await readFile(path)).length));
  front.asked.length = 0;
  await pullEnvironment(image(":two"));
  expect(front.asked.filter((each) => each.includes(digest))).toHaveLength(1);
  expect(await names(image(":two"))).toEqual(["", "etc", "etc/hostname", "noise"]);
});

describe("a registry that is slow", () => {
  const isLower = (incoming: { url?: string | undefined }) => incoming.url!.endsWith(sha256(gzipSync(lower, { level: 1 })));
  const stored = gzipSync(lower, { level: 1 });

  test("and stops in the middle is asked again for the rest", async () => {
    const before = { ...patience };
    Object.assign(patience, { partMs: 500 });
    try {
      let stalls = 1;
      front.fault = (incoming, outgoing) => {
        if (!isLower(incoming) || stalls-- <= 0) return false;
        outgoing.writeHead(200, { "content-length": `${stored.length}` });
        outgoing.write(stored.subarray(0, 100_000)); // and no more, with the connection open
        return true;
      };
      await pullEnvironment(image());
      const ranges = front.asked.filter((each) => isLower({ url: each.split(" ")[1] }));
      expect(ranges.slice(0, 2)).toEqual([expect.not.stringContaining("bytes="), expect.stringMatching(/bytes=100000-$/)]); // and on a machine that pauses for long, once more
      expect(await names(image())).toEqual(["", "etc", "etc/hostname", "noise"]);
    } finally {
      Object.assign(patience, before);
    }
  });

  test("is waited for, piece by piece, and said to go on", async () => {
    front.fault = async (incoming, outgoing) => {
      if (!isLower(incoming)) return false;
      outgoing.writeHead(200, { "content-length": `${stored.length}` });
      for (let at = 0; at < stored.length; at += 50_000) {
        outgoing.write(stored.subarray(at, at + 50_000));
        await new Promise((resolve) => setTimeout(resolve, 150));
      }
      outgoing.end();
      return true;
    };
    const told = new Set<number>();
    await pullEnvironment(image(), { onProgress: ({ layer }) => layer?.digest === sha256(stored) && told.add(layer.doneBytes) });
    expect(front.asked.filter((each) => isLower({ url: each.split(" ")[1] }))).toHaveLength(1);
    expect([...told].at(-1)).toBe(stored.length);
  });
});

describe("a registry that is busy", () => {
  test("is asked again when it says", async () => {
    let busy = 2;
    front.fault = (incoming, outgoing) => incoming.url!.includes("/manifests/") && busy-- > 0 && answer(outgoing, 429, { "retry-after": "100" });
    paused.length = 0;
    await pullEnvironment(image());
    expect(front.asked.filter((each) => each.includes("/manifests/"))).toHaveLength(3);
    expect(paused.filter((ms) => ms === 100_000)).toHaveLength(2);
  });

  test("for longer than anybody waits", async () => {
    front.fault = (_incoming, outgoing) => answer(outgoing, 429, { "retry-after": "3600" });
    await expect(pullEnvironment(image())).rejects.toMatchObject({ code: "REGISTRY", message: expect.stringContaining("3600 s, over the limit maxRetryAfterMs (120000)") });
  });

  test.each([[429, "docker login"], [503, "Try again later, or ask who runs it."]])("for good, with %s: what it says, and what to do", async (status, hint) => {
    front.fault = (_incoming, outgoing) => answer(outgoing, status, {}, '{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your limit"}]}');
    await expect(pullEnvironment(image())).rejects.toMatchObject({ code: "REGISTRY", message: `${front.host} answered ${status}: You have reached your limit.`, hint: expect.stringContaining(hint) });
  });

  test("with a page to log in at", async () => {
    front.fault = (_incoming, outgoing) => answer(outgoing, 200, { "content-type": "text/html; charset=utf-8" }, "<!DOCTYPE html>");
    await expect(pullEnvironment(image())).rejects.toMatchObject({ code: "REGISTRY", message: `${front.host} answered with a web page where ${image()} was asked for.`, hint: expect.stringContaining("proxy") });
  });

  test("for a moment", async () => {
    let busy = 1;
    front.fault = (_incoming, outgoing) => busy-- > 0 && answer(outgoing, 503, {});
    await pullEnvironment(image());
  });
});

describe("who asks", () => {
  /** bcrypt of "secret", which is what docker-registry takes. */
  const htpasswd = "agent:$2y$05$VgtsLT6dc8LNLdEdgBJLX.BCLDB0YNx.oLcdXrYj.eRntppgvDD7e\n";

  test("a name and a password, in the clear and over TLS with a certificate of one's own", async () => {
    const tls = await makeCertificate(join(temporary.path(), "tls"));
    const closed = await startRegistry(join(temporary.path(), "closed"), { htpasswd, tls });
    try {
      await push(layout.path, "two", `${closed.host}/team/image:two`, "--dest-creds", "agent:secret");
      const name = `${closed.host}/team/image:two`;
      await expect(pullEnvironment(name)).rejects.toMatchObject({ code: "REGISTRY", hint: expect.stringContaining("PYRO_REGISTRY_CA") });
      process.env["PYRO_REGISTRY_CA"] = tls.certificate;
      await expect(pullEnvironment(name)).rejects.toMatchObject({ code: "DENIED", hint: expect.stringContaining(`docker login ${closed.host}`) });
      await logIn(closed.host, "agent:wrong");
      await expect(pullEnvironment(name)).rejects.toMatchObject({ code: "DENIED" });
      await logIn(closed.host, "agent:secret");
      expect((await pullEnvironment(name)).installed).toBe(true);
    } finally {
      await closed.close();
    }
  });

  test("a password that goes in the clear over a network is told of; on this machine it is not", async () => {
    const proxy = await startFront(registry.host);
    try {
      for (const [host, warned] of [["registry.invalid:5000", true], [front.host, false]] as const) {
        process.env["http_proxy"] = `http://${proxy.host}`;
        process.env["PYRO_PLAIN_HTTP_REGISTRIES"] = host;
        await logIn(host, "agent:secret");
        proxy.fault = front.fault = (incoming, outgoing) => answer(outgoing, incoming.headers.authorization === undefined ? 401 : 404, { "www-authenticate": 'Basic realm="x"' });
        const told: string[] = [];
        await expect(pullEnvironment(`${host}/team/image:two`, { onProgress: ({ message }) => told.push(message) })).rejects.toMatchObject({ code: "NOT_FOUND" });
        expect([...new Set(told)].filter((each) => each.startsWith("warning"))).toEqual(warned ? ["warning: registry.invalid:5000 is asked without TLS, so the password for it can be read on the way"] : []);
      }
    } finally {
      await proxy.close();
    }
  });

  test("a token that ends in the middle is renewed", async () => {
    let valid = "";
    let given = 0;
    let uses = 0;
    front.fault = (incoming, outgoing) => {
      if (incoming.url!.startsWith("/token")) {
        expect(incoming.url).toContain("scope=repository%3Ateam%2Fimage%3Apull");
        expect(incoming.url).toContain("service=test");
        valid = `t${++given}`;
        uses = 0;
        return answer(outgoing, 200, {}, JSON.stringify({ token: valid }));
      }
      if (incoming.headers.authorization !== `Bearer ${valid}` || (given === 1 && ++uses > 2)) return answer(outgoing, 401, { "www-authenticate": `Bearer realm="http://${front.host}/token",service="test",scope="repository:team/image:pull"` });
      delete incoming.headers.authorization;
      return false;
    };
    process.env["PYRO_PLAIN_HTTP_REGISTRIES"] = front.host;
    await pullEnvironment(image());
    expect(given).toBe(2);
  });

  test("an identity token, out of a credential helper", async () => {
    const bin = join(temporary.path(), "helpers");
    await mkdir(bin, { recursive: true });
    await writeFile(join(bin, "docker-credential-test"), `#!/bin/sh\nread host; [ "$1" = get ] && [ "$host" = '${front.host}' ] && echo '{"ServerURL":"x","Username":"<token>","Secret":"identity"}'\n`, { mode: 0o755 });
    process.env["PATH"] = `${bin}:${process.env["PATH"]}`;
    await mkdir(join(temporary.path(), "docker"), { recursive: true });
    await writeFile(join(temporary.path(), "docker/config.json"), JSON.stringify({ credHelpers: { [front.host]: "test" } }));
    process.env["PYRO_PLAIN_HTTP_REGISTRIES"] = front.host;
    let asked = "";
    front.fault = async (incoming, outgoing) => {
      if (incoming.url === "/token") {
        for await (const part of incoming) asked += String(part);
        return answer(outgoing, 200, {}, JSON.stringify({ access_token: "good" }));
      }
      if (incoming.headers.authorization !== "Bearer good") return answer(outgoing, 401, { "www-authenticate": `Bearer realm="http://${front.host}/token",service="test"` });
      delete incoming.headers.authorization;
      return false;
    };
    await pullEnvironment(image());
    expect(Object.fromEntries(new URLSearchParams(asked))).toMatchObject({ grant_type: "refresh_token", refresh_token: "identity", scope: "repository:team/image:pull", service: "test" });
  });

  describe("with a program that keeps passwords and", () => {
    const helper = async (name: string, script: string | undefined) => {
      const bin = join(temporary.path(), "keepers");
      await mkdir(bin, { recursive: true });
      if (script !== undefined) await writeFile(join(bin, `docker-credential-${name}`), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
      process.env["PATH"] = `${bin}:${before["PATH"]}`;
      await mkdir(join(temporary.path(), "docker"), { recursive: true });
      await writeFile(join(temporary.path(), "docker/config.json"), JSON.stringify({ credsStore: name }));
      process.env["PYRO_PLAIN_HTTP_REGISTRIES"] = front.host;
    };
    /** Everybody gets a token, empty under one of its names; and nobody gets anything from a registry that is `closed`. */
    const used = new Set<string>();
    const everybodys = (closed = false) => {
      used.clear();
      front.fault = (incoming, outgoing) => {
        if (incoming.url!.startsWith("/token")) return answer(outgoing, 200, {}, JSON.stringify({ token: "", access_token: `of ${incoming.headers.authorization ?? "nobody"}`.replaceAll(" ", "-") }));
        if (incoming.headers.authorization === undefined || closed) return answer(outgoing, 401, { "www-authenticate": `Bearer realm="http://${front.host}/token",service="test"` });
        used.add(incoming.headers.authorization);
        delete incoming.headers.authorization;
        return false;
      };
    };
    const pull = async () => {
      const told: string[] = [];
      await pullEnvironment(image(), { onProgress: ({ message }) => told.push(message) });
      return [...new Set(told)].filter((each) => each.startsWith("warning")); // what goes on is told again each second
    };

    test.each([
      ["is not installed", "desktop", undefined, "Docker's config.json says that passwords are kept by docker-credential-desktop, which is not installed.", "Install it, or take the helper out of config.json and log in again."],
      ["fails", "locked", "echo 'pass not initialized: exit status 1' >&2; exit 1", /^docker-credential-locked could not be asked for the password of 127\.0\.0\.1:[0-9]+: pass not initialized: exit status 1\.$/, "Mend that, or take the helper out of Docker's config.json and log in again."],
      ["says what nobody understands", "odd", "echo no JSON", "What docker-credential-odd said is not JSON.", undefined],
    ])("%s: what is everybody's is had, what isn't is denied with the reason", async (_what, name, script, message, hint) => {
      await helper(name, script);
      everybodys();
      const told = await pull();
      expect(told).toHaveLength(1);
      const matching = typeof message === "string" ? message : /could not be asked for the password/;
      expect(told[0]).toMatch(matching);
      expect(told[0]).toMatch(/ is asked as by somebody unknown$/);
      everybodys(true);
      const denied = await pullEnvironment(image(":one")).catch((error: unknown) => error as Error & { hint?: string });
      expect(denied).toMatchObject({ code: "DENIED", message: expect.stringContaining("does not give team/image to somebody unknown") });
      expect((denied as Error).message.split("somebody unknown. ")[1]).toMatch(message);
      expect((denied as { hint?: string }).hint).toBe(hint);
    });

    test.each([
      ["has nothing for it", "echo 'credentials not found in native keychain'; exit 1", "of-nobody"],
      ["answers with nothing", `echo '{"ServerURL":"x","Username":"","Secret":""}'`, "of-nobody"],
      ["takes its own variables", `echo "{\\"Username\\":\\"AWS\\",\\"Secret\\":\\"$AWS_SESSION_TOKEN\\"}"`, `of-Basic-${Buffer.from("AWS:session").toString("base64")}`],
    ])("%s: nothing is told", async (_what, script, token) => {
      await helper("quiet", script);
      process.env["AWS_SESSION_TOKEN"] = "session";
      everybodys();
      expect(await pull()).toEqual([]);
      expect([...used]).toEqual([`Bearer ${token}`]);
    });
  });
});

test("through a proxy, and past it where the user says so", async () => {
  await access(layout.path);
  const proxy = await startFront(registry.host);
  try {
    process.env["http_proxy"] = `http://${proxy.host}`;
    process.env["PYRO_PLAIN_HTTP_REGISTRIES"] = "registry.invalid:5000";
    let asked = "";
    proxy.fault = (incoming, outgoing) => {
      asked = `${incoming.method} ${incoming.url}`;
      return answer(outgoing, 404, {});
    };
    await expect(pullEnvironment("registry.invalid:5000/team/image:two")).rejects.toMatchObject({ code: "NOT_FOUND" });
    expect(asked).toMatch(/registry\.invalid:5000/);
    // Ranges of addresses are meant too. Nobody can connect to this one, which is said at once.
    process.env["PYRO_PLAIN_HTTP_REGISTRIES"] += ",224.0.0.1:5000,[ff02::1]:5000";
    for (const [name, ranges, isProxied] of [["224.0.0.1:5000", "10.0.0.0/8, 224.0.0.0/4", false], ["224.0.0.1:5000", "224.0.0.1", false], ["224.0.0.1:5000", "192.0.2.0/24,ff00::/8,224.0.0.0/33", true], ["[ff02::1]:5000", "ff00::/8", false], ["[ff02::1]:5000", "fd00::/8,224.0.0.0/4", true]] as const) {
      process.env["no_proxy"] = ranges;
      asked = "";
      await expect(pullEnvironment(`${name}/team/image:two`)).rejects.toMatchObject({ code: isProxied ? "NOT_FOUND" : "REGISTRY" });
      expect(asked !== "", `${name} ${ranges}`).toBe(isProxied);
    }
    process.env["no_proxy"] = "registry.invalid";
    asked = "";
    await expect(pullEnvironment("registry.invalid:5000/team/image:two")).rejects.toMatchObject({ code: "REGISTRY" });
    expect(asked).toBe("");
  } finally {
    await proxy.close();
  }
});

test("over TLS through a proxy: a tunnel, with the registry's own certificate at its end", async () => {
  const tls = await makeCertificate(join(temporary.path(), "tls-name"), "DNS:registry.invalid");
  const behind = await startRegistry(join(temporary.path(), "behind"), { tls });
  const proxy = await startProxy(behind.host);
  try {
    await push(layout.path, "two", `${behind.host}/team/image:two`);
    process.env["https_proxy"] = `http://user:pass@${proxy.host}`;
    const name = "registry.invalid/team/image:two";
    await expect(pullEnvironment(name)).rejects.toMatchObject({ code: "REGISTRY", hint: expect.stringContaining("PYRO_REGISTRY_CA") });
    process.env["PYRO_REGISTRY_CA"] = tls.certificate;
    expect((await pullEnvironment(name)).installed).toBe(true);
    expect(new Set(proxy.asked)).toEqual(new Set([`registry.invalid:443 Basic ${Buffer.from("user:pass").toString("base64")}`]));
    // A name that the certificate is not for.
    await expect(pullEnvironment("other.invalid/team/image:two")).rejects.toMatchObject({ code: "REGISTRY" });
    proxy.asked.length = 0;
    process.env["no_proxy"] = ".invalid";
    await expect(pullEnvironment("registry.invalid/team/image:one")).rejects.toMatchObject({ code: "REGISTRY" });
    expect(proxy.asked).toEqual([]);
  } finally {
    await proxy.close();
    await behind.close();
  }
});

function answer(outgoing: { writeHead(status: number, headers: Record<string, string>): { end(body?: string): unknown } }, status: number, headers: Record<string, string>, body = ""): true {
  outgoing.writeHead(status, headers).end(body);
  return true;
}

async function logIn(host: string, auth: string): Promise<void> {
  await mkdir(join(temporary.path(), "docker"), { recursive: true });
  await writeFile(join(temporary.path(), "docker/config.json"), JSON.stringify({ auths: { [host]: { auth: Buffer.from(auth).toString("base64") } } }));
}

describe("what is kept of images", () => {
  test("goes with the last environment that is made of it", async () => {
    const blobs = async () => (await readdir(join(process.env["XDG_CACHE_HOME"]!, "pyro-mcp/blobs/sha256"))).length;
    await pullEnvironment(image(":one"));
    await pullEnvironment(image(":two"));
    expect(await blobs()).toBe(6); // two manifests, two configurations, two layers
    expect((await pruneEnvironments()).removed.filter((each) => !each.startsWith("kernel"))).toEqual([]);
    const { removed } = await removeEnvironment(image(":two"));
    expect(removed).toEqual([expect.stringMatching(/^environment sha256:/), "content of images"]);
    expect(await blobs()).toBe(3);
    expect(await names(image(":one"))).toEqual(["", "etc", "etc/hostname", "gone", "noise"]);
    await expect(removeEnvironment(image(":two"))).rejects.toMatchObject({ code: "NOT_FOUND" });
  });

  test("is written as a layout that others read, with the same digests", async () => {
    await pullEnvironment(image(":two"));
    const target = join(temporary.path(), "exported");
    const { manifestDigest } = await exportEnvironment(image(":two"), target);
    expect(manifestDigest).toBe((await inspectEnvironment(image(":two"))).image!.manifestDigest);
    const seen = await runChild("skopeo", ["inspect", "--format", "{{.Digest}}", `oci:${target}:latest`]);
    expect(seen.stdout.toString().trim()).toBe(manifestDigest);
    await pullEnvironment(target);
    expect((await openEnvironment(target))!.digest).toBe((await openEnvironment(image(":two")))!.digest);
    await expect(exportEnvironment(image(":two"), target)).rejects.toMatchObject({ code: "EXISTS" });
    await expect(exportEnvironment(image(":one"), `${target}2`)).rejects.toMatchObject({ code: "NOT_FOUND" });
    await rm(join(process.env["XDG_CACHE_HOME"]!, "pyro-mcp/blobs/sha256", manifestDigest.slice(7)));
    await expect(exportEnvironment(image(":two"), `${target}2`)).rejects.toMatchObject({ code: "ENVIRONMENT_INVALID" });
    expect((await readdir(temporary.path())).filter((each) => each.includes("exported"))).toEqual(["exported"]);
  });

  test("stays while a VM runs from it, however it is asked for", async () => {
    await pullEnvironment(image(":one"));
    const held = await holdEnvironment((await openEnvironment(image(":one")))!);
    try {
      await expect(removeEnvironment(image(":one"))).rejects.toMatchObject({ code: "INVALID_STATE" });
      expect((await pruneEnvironments({ olderThanSeconds: 0, maxMib: 0 })).removed).toEqual([]);
    } finally {
      await held.release();
    }
    expect((await pruneEnvironments({ maxMib: 1000, olderThanSeconds: 3600 })).removed).toEqual([]);
    expect((await pruneEnvironments({ maxMib: 0 })).removed).toEqual([expect.stringMatching(/^environment/), expect.stringMatching(/^kernel/), "content of images"]);
    await nothingInstalled();
  });

  test("goes by size as far as that has to be: first what nobody needs, then the oldest, by what that really brings", async () => {
    const cache = join(process.env["XDG_CACHE_HOME"]!, "pyro-mcp");
    const large = new Layout(join(temporary.path(), "large"));
    const shared = archive({ name: "shared", data: randomBytes(3 << 20) });
    await large.image([shared], { tag: "one" });
    await large.image([shared, upper], { tag: "two" });
    await large.finish();
    const names = [`${large.path}:one`, `${large.path}:two`];
    for (const name of names) await pullEnvironment(name); // 9 MiB: a disk each, and the layer that both have
    await writeFile(join(cache, "blobs/sha256", "0".repeat(64)), Buffer.alloc(8 << 20, 1)); // nobody's
    expect((await pruneEnvironments({ maxMib: 11 })).removed).toEqual(["content of images"]);
    // The first one's disk alone goes with it.
    expect((await pruneEnvironments({ maxMib: 8 })).removed).toEqual([expect.stringMatching(/^environment/), "content of images"]);
    expect(await openEnvironment(names[0]!)).toBeUndefined();
    await pullEnvironment(names[0]!);
    const { removed } = await pruneEnvironments({ maxMib: 5 });
    expect(removed.filter((each) => each.startsWith("environment"))).toHaveLength(2);
    await nothingInstalled();
  });

  test("stays while somebody needs it who runs nothing, also when its name stands for another one", async () => {
    await pullEnvironment(image(":one"));
    const first = (await openEnvironment(image(":one")))!.digest;
    const neededBy = async () => new Map([[first, "vm-abcd2345"]]);
    await expect(removeEnvironment(image(":one"), { neededBy })).rejects.toMatchObject({ code: "INVALID_STATE", message: `The VM vm-abcd2345 is of the environment ${image(":one")}.`, hint: "Delete it first: pyro vm delete vm-abcd2345" });
    expect((await pruneEnvironments({ neededBy, olderThanSeconds: -1, maxMib: 0 })).removed).toEqual([]);
    front.fault = (incoming) => (incoming.url = incoming.url!.replace("manifests/one", "manifests/two"), false);
    await pullEnvironment(image(":one"));
    expect((await openEnvironment(image(":one")))!.digest).not.toBe(first);
    expect((await pruneEnvironments({ neededBy })).removed).toEqual([]);
    guest.path = join(temporary.path(), "newer-guest");
    await writeFile(guest.path, "a newer guest program");
    const kept = (await openEnvironment(image(":one"), { digest: first }))!;
    expect([kept.digest, [...readErofs(kept.rootDisk).keys()].sort()]).toEqual([first, ["", "etc", "etc/hostname", "gone", "noise"]]);
    expect((await pruneEnvironments()).removed).toEqual([`environment ${first}`, "content of images"]);
    expect((await openEnvironment(image(":one"), { digest: first }))!.digest).not.toBe(first); // which whoever asks sees
  });

  test("an image under a name of the user's own, from a layout and from an archive", async () => {
    await pullEnvironment("team/ci", { source: `${layout.path}:two` });
    expect(await names("team/ci")).toEqual(["", "etc", "etc/hostname", "noise"]);
    expect(front.asked).toEqual([]);
    await pullEnvironment("team/ci"); // which knows where from
    const archived = join(temporary.path(), "saved.tar");
    const { code, stderr } = await runChild("skopeo", ["copy", "--quiet", "--insecure-policy", `oci:${layout.path}:two`, `docker-archive:${archived}:team/ci:saved`]);
    expect(stderr).toBe("");
    expect(code).toBe(0);
    await pullEnvironment(`${archived}:team/ci:saved`);
    expect(await names(`${archived}:team/ci:saved`)).toEqual(["", "etc", "etc/hostname", "noise"]);
    await expect(pullEnvironment(layout.path)).rejects.toMatchObject({ code: "INVALID_ARGUMENT", message: expect.stringContaining("has 3 images") });
    await expect(pullEnvironment(`${layout.path}:nine`)).rejects.toMatchObject({ code: "NOT_FOUND", hint: expect.stringContaining("two") });
    await expect(pullEnvironment(temporary.path())).rejects.toMatchObject({ code: "ENVIRONMENT_INVALID", message: expect.stringContaining("no OCI layout") });
    await expect(pullEnvironment(join(temporary.path(), "nothing"))).rejects.toMatchObject({ code: "NOT_FOUND" });
  });
});

test("a catalog of the user's own: the first source that can be reached", async () => {
  const file = join(temporary.path(), "catalog.json");
  process.env["PYRO_CATALOG"] = file;
  const mendIt = 'Mend it, or unset PYRO_CATALOG to do without. It looks like this: {"schema_version": 1, "environments": [{"name": "ci", "sources": ["registry.example/team/ci:1"]}]}';
  const write = (environments: unknown) => writeFile(file, JSON.stringify({ schema_version: 1, environments }));
  await write([{ name: "ci", description: "what CI runs in", sources: ["127.0.0.1:1/team/image:two", image(":one")] }]);
  expect(await listEnvironments()).toContainEqual({ name: "ci", version: "-", description: "what CI runs in", distribution: "oci", platform: "linux/amd64", installed: false });
  const told: string[] = [];
  expect(await pullEnvironment("ci", { onProgress: ({ message }) => told.push(message) })).toMatchObject({ name: "ci", installed: true, source: image(":one") });
  expect(told).toContainEqual(expect.stringMatching(/^https?:\/\/127\.0\.0\.1:1 could not be reached: .* Trying 127\.0\.0\.1:[0-9]+\/team\/image:one$/));
  expect((await openEnvironment("ci"))!.name).toBe("ci");
  for (const [wrong, message] of [[[{ name: "debian:12", sources: ["a/b"] }], "pyro's own"], [[{ name: "x", sources: [] }], "no source"], [[{ name: "../x", sources: ["a/b"] }], "can't be an environment's name"], [{}, "a list"]] as const) {
    await write(wrong);
    await expect(listEnvironments()).rejects.toMatchObject({ message: expect.stringContaining(message), hint: mendIt });
    await expect(listEnvironments()).rejects.toThrow(file);
    expect((await openEnvironment("debian:12"))).toBeUndefined(); // the catalog's own names do without it
  }
  for (const [text, message] of [['{"schema_version": 1,', "is not JSON"], ['{"schema_version": 2, "environments": []}', "is not a whole number from 1 to 1"], ["[]", "is not a JSON object"]] as const) {
    await writeFile(file, text);
    await expect(listEnvironments()).rejects.toMatchObject({ code: "ENVIRONMENT_INVALID", message: expect.stringMatching(new RegExp(`${file}.* ?${message}`)), hint: mendIt });
  }
  await rm(file);
  await expect(listEnvironments()).rejects.toMatchObject({ code: "NOT_FOUND", hint: "PYRO_CATALOG names the file; unset it to do without." });
});
