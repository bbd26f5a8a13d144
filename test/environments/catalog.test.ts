/** The catalog's names out of official images where they can be had, and out of Debian's archive where not: a registry on loopback, images made here, stand-ins for apt and mmdebstrap. */
import { createServer, type Server } from "node:net";
import { mkdir, readdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, expect, test, vi } from "vitest";
import { findProgram } from "../../src/base/child.js";
import { catalog } from "../../src/environments/catalog.js";
import { exportEnvironment, inspectEnvironment, openEnvironment, pullEnvironment } from "../../src/environments/index.js";
import { impatience } from "../../src/environments/registry/http.js";
import { readErofs } from "./erofs-reader.js";
import { makeFakeHost, makeKernel, useTemporary } from "./fixtures.js";
import { Layout } from "./image-maker.js";
import { push, startFront, startRegistry, type Front, type RealRegistry } from "./registry-server.js";
import { archive, type Member } from "./tar-maker.js";

const guest = vi.hoisted(() => ({ path: "" }));
vi.mock("../../src/base/paths.js", async (original) => {
  const real = await original<typeof import("../../src/base/paths.js")>();
  return { ...real, nativeProgram: (name: "pyro-guest" | "pyro-keeper") => (name === "pyro-guest" ? guest.path : real.nativeProgram(name)) };
});

const temporary = useTemporary();
const before = { ...process.env };
let missing: string | undefined;
let registry: RealRegistry;
let hub: Front;
let host: Awaited<ReturnType<typeof makeFakeHost>>;
let silent: Server;
let count = 0;
let kernel: string;

/** Programs of the images that stand in for the official ones; those of the real ones are in their Dockerfiles. */
const images: Record<string, string[]> = {
  "buildpack-deps:bookworm-scm": ["usr/bin/bash", "usr/bin/curl", "usr/bin/git", "usr/bin/ps"],
  "debian:bookworm-slim": ["bin/bash", "usr/bin/ls"],
  "buildpack-deps:bookworm": ["usr/bin/bash", "usr/bin/curl", "usr/bin/git", "usr/bin/gcc", "usr/bin/g++", "usr/bin/make", "usr/bin/patch", "usr/bin/ps", "usr/bin/unzip", "usr/bin/xz"], // and no pkg-config
};

beforeAll(async () => {
  for (const program of ["docker-registry", "skopeo"]) await findProgram(program).catch(() => (missing = program));
  if (missing !== undefined) return;
  guest.path = join(temporary.path(), "guest");
  await writeFile(guest.path, "the guest program");
  registry = await startRegistry(join(temporary.path(), "registry"));
  hub = await startFront(registry.host);
  const layout = new Layout(join(temporary.path(), "layout"));
  for (const [name, programs] of Object.entries(images)) await layout.image([archive(...programs.map((each): Member => ({ name: each, mode: 0o755, data: name })))], { tag: name.replace(":", "_"), config: { Env: ["FROM=image"], Cmd: ["bash"], User: "7" } });
  await layout.finish();
  for (const name of Object.keys(images)) await push(layout.path, name.replace(":", "_"), `${registry.host}/library/${name}`);
  await mkdir(join(temporary.path(), "host"));
  host = await makeFakeHost(join(temporary.path(), "host"));
  kernel = await makeKernel(temporary.path());
  silent = createServer(() => {}); // takes connections and never says a word
  await new Promise<void>((resolve) => void silent.listen(0, "127.0.0.1", resolve));
});

afterAll(async () => {
  process.env = before;
  await hub?.close();
  await registry?.close();
  silent?.close();
});

beforeEach(async ({ skip }) => {
  skip(missing !== undefined, `${missing} is not installed`);
  process.env = { ...before, PATH: `${host.bin}:${before["PATH"]}`, XDG_CACHE_HOME: join(temporary.path(), `cache${++count}`), PYRO_KERNEL_DIR: kernel, PYRO_CATALOG_FROM: "auto", PYRO_DOCKER_HUB_MIRROR: hub.host, DOCKER_CONFIG: join(temporary.path(), "docker") };
  for (const name of ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"]) delete process.env[name];
  Object.assign(impatience, { connectMs: 120_000, answerMs: 120_000 }); // what can be reached is, however long we stand still
  hub.asked.length = hub.headers.length = 0;
  hub.fault = undefined;
  await rm(join(temporary.path(), "host/calls"), { force: true });
});

const made = async () => (await host.calls()).filter((call) => call.startsWith("mmdebstrap")).length;
async function messages(name: string, options: Parameters<typeof pullEnvironment>[1] = {}): Promise<string[]> {
  const told: string[] = [];
  await pullEnvironment(name, { ...options, onProgress: ({ message }) => told.push(message) });
  return [...new Set(told)].filter((each) => each.includes("Trying")); // what goes on is told again each second
}

test("an official image, and used as the catalog says, not as the image does", async () => {
  expect(await pullEnvironment("debian:12")).toMatchObject({ name: "debian:12", version: "12", description: "Debian 12 with Git and what agents reach for first", distribution: "debian", source: "docker.io/library/buildpack-deps:bookworm-scm" });
  const opened = (await openEnvironment("debian:12"))!;
  expect(opened.config).toBeUndefined();
  expect(readErofs(opened.rootDisk).get("usr/bin/git")!.content!.toString()).toBe("buildpack-deps:bookworm-scm");
  expect(await made()).toBe(0);
  // The image itself is another environment: it says how it is run.
  await pullEnvironment("docker.io/library/buildpack-deps:bookworm-scm");
  const image = (await openEnvironment("docker.io/library/buildpack-deps:bookworm-scm"))!;
  expect(image.config).toEqual({ env: { FROM: "image" }, cmd: ["bash"], user: "7" });
  expect(image.digest).not.toBe(opened.digest);
  expect((await inspectEnvironment("debian:12")).image).toMatchObject({ reference: "docker.io/library/buildpack-deps:bookworm-scm", env: [] });
  expect((await exportEnvironment("debian:12", join(temporary.path(), "exported"))).manifestDigest).toBe((await inspectEnvironment("debian:12")).image!.manifestDigest);
});

test("what is there stays, without a look at the network; made again it is what the image is now", async () => {
  await pullEnvironment("debian:12-base");
  hub.asked.length = 0;
  await pullEnvironment("debian:12-base");
  expect(hub.asked).toEqual([]);
  await pullEnvironment("debian:12-base", { force: true });
  expect(hub.asked).toContain("GET /v2/library/debian/manifests/bookworm-slim");
});

test("an image that lacks what the name promises is not it: the archive", async () => {
  expect(await messages("debian:12-build")).toEqual(["docker.io/library/buildpack-deps:bookworm is not debian:12-build: it has no pkg-config. Trying Debian's archive"]);
  expect(await made()).toBe(1);
  expect((await inspectEnvironment("debian:12-build")).source).toMatch(/^debian:bookworm from/);
  expect(await readdir(join(process.env["XDG_CACHE_HOME"]!, "pyro-mcp/tmp"))).toEqual([]);
});

test.each([
  ["that nobody listens at", () => "127.0.0.1:1", /^https:\/\/127\.0\.0\.1:1 could not be reached: .* Trying Debian's archive$/],
  ["that takes the connection and does not answer", () => `127.0.0.1:${(silent.address() as { port: number }).port}`, /could not be reached: .* Trying Debian's archive$/],
  ["whose name nobody knows", () => "hub.invalid", /could not be reached: .* Trying Debian's archive$/],
])("a registry %s: one line, and the archive", async (_what, mirror, line) => {
  process.env["PYRO_DOCKER_HUB_MIRROR"] = mirror();
  impatience.connectMs = 4000;
  expect(await messages("debian:12-base")).toEqual([expect.stringMatching(line)]);
  expect(await made()).toBe(1);
  // And what was made from the archive is mended from there, without another try.
  await rm((await openEnvironment("debian:12-base"))!.initramfs);
  expect(await messages("debian:12-base")).toEqual([]);
  expect(await made()).toBe(1);
});

test("a mirror that has Docker Hub's images below a name of its own, and what is no mirror", async () => {
  process.env["PYRO_DOCKER_HUB_MIRROR"] = `${hub.host}/proxies/docker-hub`;
  hub.fault = (incoming) => (incoming.url = incoming.url!.replace("/v2/proxies/docker-hub/", "/v2/"), false);
  expect(await messages("debian:12-base")).toEqual([]);
  expect(hub.asked[0]).toBe("GET /v2/proxies/docker-hub/library/debian/manifests/bookworm-slim");
  expect(new Set(hub.asked.slice(1).map((each) => each.replace(/sha256:.*/, "")))).toEqual(new Set(["GET /v2/proxies/docker-hub/library/debian/blobs/"]));
  for (const wrong of ["https://mirror.example", "mirror.example/", "mirror.example/../x", "user@mirror.example"]) {
    process.env["PYRO_DOCKER_HUB_MIRROR"] = wrong;
    await expect(pullEnvironment("debian:12-base", { force: true })).rejects.toMatchObject({ code: "INVALID_ARGUMENT", message: expect.stringContaining(`PYRO_DOCKER_HUB_MIRROR is "${wrong}"; it is HOST:PORT, or`) });
  }
});

test("a registry that takes a request and never answers it: given up soon", async () => {
  impatience.answerMs = 500;
  process.env["PYRO_DOCKER_HUB_MIRROR"] = process.env["PYRO_PLAIN_HTTP_REGISTRIES"] = `127.0.0.1:${(silent.address() as { port: number }).port}`;
  expect(await messages("debian:12-base")).toEqual([expect.stringMatching(/could not be reached: Headers Timeout Error\. Trying Debian's archive$/)]);
});

test("a registry that has had enough of us: once asked, the archive", async () => {
  hub.fault = (_incoming, outgoing) => (outgoing.writeHead(429).end(), true);
  expect(await messages("debian:12-base")).toEqual(["127.0.0.1:PORT answered 429. Trying Debian's archive".replace("127.0.0.1:PORT", hub.host)]);
  expect(hub.asked).toHaveLength(1);
});

test("the user says what from", async () => {
  process.env["PYRO_CATALOG_FROM"] = "archive";
  await pullEnvironment("debian:12-base");
  expect([hub.asked, await made()]).toEqual([[], 1]);
  process.env["PYRO_CATALOG_FROM"] = "images";
  await expect(pullEnvironment("debian:12-build")).rejects.toMatchObject({ code: "NOT_FOUND", message: "docker.io/library/buildpack-deps:bookworm is not debian:12-build: it has no pkg-config." });
  expect(await pullEnvironment("debian:12-base", { source: "docker.io/library/debian:bookworm-slim" })).toMatchObject({ source: "docker.io/library/debian:bookworm-slim" });
  await expect(pullEnvironment("debian:12", { source: "docker.io/library/debian:bookworm-slim" })).rejects.toMatchObject({ message: "docker.io/library/debian:bookworm-slim is not debian:12: it has no curl, git, ps." });
  expect((await pullEnvironment("debian:12-base", { source: "debian-archive" })).source).toMatch(/^debian:bookworm from/);
  process.env["PYRO_CATALOG_FROM"] = "hub";
  await expect(pullEnvironment("debian:12")).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
});

test("a mirror gets its own password, and never Docker Hub's", async () => {
  await mkdir(process.env["DOCKER_CONFIG"]!, { recursive: true });
  await writeFile(join(process.env["DOCKER_CONFIG"]!, "config.json"), JSON.stringify({ auths: { "https://index.docker.io/v1/": { auth: Buffer.from("hub:secret").toString("base64") } } }));
  hub.fault = (_incoming, outgoing) => (outgoing.writeHead(401, { "www-authenticate": 'Basic realm="x"' }).end(), true);
  expect(await messages("debian:12-base")).toHaveLength(1);
  expect(hub.headers.map((each) => each.authorization)).toEqual([undefined]);
  await rm(process.env["DOCKER_CONFIG"]!, { recursive: true });
});

test("each of the catalog has an official image, and programs that tell it", () => {
  expect(catalog.map(({ name, images: official, programs }) => [name, official, programs])).toEqual([
    ["debian:12", ["docker.io/library/buildpack-deps:bookworm-scm"], ["bash", "curl", "git", "ps"]],
    ["debian:12-base", ["docker.io/library/debian:bookworm-slim"], ["bash", "ls"]],
    ["debian:12-build", ["docker.io/library/buildpack-deps:bookworm"], ["bash", "curl", "g++", "gcc", "git", "make", "patch", "pkg-config", "ps", "unzip", "xz"]],
  ]);
});
