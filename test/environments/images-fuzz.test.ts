/** Whatever the bytes of an image are: what can't be is refused with a PyroError, in little time and memory, and nothing of it is left. */
import { existsSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { expect, test } from "vitest";
import { runChild } from "../../src/base/child.js";
import { PyroError } from "../../src/base/error.js";
import { choosePlatform, parseConfig, parseDocument } from "../../src/environments/images/documents.js";
import { openLayer } from "../../src/environments/images/layer-tar.js";
import { parseImageName, printReference } from "../../src/environments/images/reference.js";
import { cutAtFrames, unzstd } from "../../src/environments/images/zstd.js";
import { mergeLayers } from "../../src/environments/layers.js";
import { parseChallenges } from "../../src/environments/registry/challenge.js";
import { has, useDirectory } from "./erofs-check.js";
import { readErofs } from "./erofs-reader.js";
import { seeded } from "./fixtures.js";
import { mediaTypes, sha256 } from "./image-maker.js";
import { adversarialLayers } from "./layers-corpus.js";
import { archive, stream } from "./tar-maker.js";

const directory = useDirectory();
const digest = `sha256:${"a".repeat(64)}`;

const documents = [
  { schemaVersion: 2, mediaType: mediaTypes.index, manifests: [{ mediaType: mediaTypes.manifest, digest, size: 7, platform: { os: "linux", architecture: "amd64", variant: "v2" }, annotations: { "org.opencontainers.image.ref.name": "x" } }] },
  { schemaVersion: 2, mediaType: mediaTypes.manifest, config: { mediaType: mediaTypes.config, digest, size: 7 }, layers: [{ mediaType: mediaTypes.gzip, digest, size: 9 }] },
  { os: "linux", architecture: "amd64", rootfs: { type: "layers", diff_ids: [digest] }, config: { Env: ["A=1", "B"], User: "1:2", WorkingDir: "/x", Entrypoint: ["/a"], Cmd: null, Labels: { "org.opencontainers.image.title": "t" } } },
];
const odd: unknown[] = [null, -1, 1e300, "", "../..", "\0", "\x1b[2J", [], {}, true, [[]], { digest: null }, "x".repeat(300), 2 ** 60];

/** One value somewhere in a document becomes another one, or goes. */
function spoil(value: unknown, random: (limit: number) => number): unknown {
  if (value === null || typeof value !== "object" || random(4) === 0) return odd[random(odd.length)];
  const copy: Record<string, unknown> | unknown[] = Array.isArray(value) ? [...(value as unknown[])] : { ...(value as Record<string, unknown>) };
  const keys = Object.keys(copy);
  const key = keys[random(keys.length)];
  if (key === undefined) return odd[random(odd.length)];
  if (random(6) === 0) delete (copy as Record<string, unknown>)[key];
  else (copy as Record<string, unknown>)[key] = spoil((copy as Record<string, unknown>)[key], random);
  return copy;
}

test("index, manifest and configuration", () => {
  const random = seeded(1);
  let read = 0;
  for (let round = 0; round < 20_000; round++) {
    let data = Buffer.from(JSON.stringify(spoil(documents[round % 3], random)) ?? "");
    if (random(5) === 0 && data.length > 0) data[random(data.length)] = random(256);
    if (random(20) === 0) data = data.subarray(0, random(data.length + 1));
    try {
      if (round % 3 === 2) parseConfig(data, "it");
      else {
        const document = parseDocument(data, "it");
        if (document.kind === "index") choosePlatform(document.manifests, "linux/amd64", "it");
      }
      read++;
    } catch (error) {
      if (!(error instanceof PyroError)) throw error;
      expect(["ENVIRONMENT_INVALID", "UNSUPPORTED", "NOT_FOUND"]).toContain(error.code);
      // eslint-disable-next-line no-control-regex -- what a terminal would act on
      expect(error.message).not.toMatch(/[\x00-\x1f\x7f-\x9f]/);
    }
  }
  expect(read).toBeGreaterThan(100); // not all of it is refused for the same first reason
});

test.each([
  ["an index and a manifest at once", { ...documents[0], ...documents[1], mediaType: undefined }, "an index and a manifest at once"],
  ["a manifest that calls itself an index", { ...documents[1], mediaType: mediaTypes.index }, "is no application"],
  ["no image", { ...documents[1], config: { mediaType: "application/vnd.cncf.helm.config.v1+json", digest, size: 1 } }, "is no image"],
  ["Docker's first format", { schemaVersion: 1, fsLayers: [] }, "schema 1"],
  ["a digest that is a path", { ...documents[1], layers: [{ mediaType: mediaTypes.layer, digest: "sha256:../../../etc/passwd", size: 1 }] }, "only digests of SHA-256"],
  ["too many layers", { ...documents[1], layers: Array.from({ length: 501 }, () => ({ mediaType: mediaTypes.layer, digest, size: 1 })) }, "at most 500"],
  ["a layer that is too large", { ...documents[1], layers: [{ mediaType: mediaTypes.layer, digest, size: 2 ** 40 }] }, "maxLayerBytes"],
  ["layers that are too large", { ...documents[1], layers: Array.from({ length: 4 }, () => ({ mediaType: mediaTypes.layer, digest, size: 2 ** 37 })) }, "maxImageBytes"],
  ["an encrypted layer", { ...documents[1], layers: [{ mediaType: `${mediaTypes.gzip}+encrypted`, digest, size: 1 }] }, "has a layer of the type"],
])("%s is refused", (_what, document, message) => {
  expect(() => parseDocument(Buffer.from(JSON.stringify(document)), "it")).toThrow(message);
});

test("limits of documents, by their names", () => {
  const bytes = (value: unknown) => Buffer.from(JSON.stringify(value));
  const blob = { mediaType: "application/vnd.oci.image.layer.v1.tar", digest, size: 1 };
  const config = { ...blob, mediaType: "application/vnd.oci.image.config.v1+json" };
  const many = (count: number, value: unknown) => Array.from({ length: count }, () => value);
  expect(() => parseDocument(bytes({ config, layers: many(501, blob) }), "It")).toThrow("(maxLayers)");
  expect(() => parseDocument(bytes({ config, layers: [{ ...blob, size: 2 ** 37 + 1 }] }), "It")).toThrow("maxLayerBytes (137438953472)");
  expect(() => parseDocument(bytes({ config, layers: many(3, { ...blob, size: 2 ** 37 }) }), "It")).toThrow("maxImageBytes (274877906944)");
  expect(() => parseDocument(bytes({ config: { ...config, size: 8_388_609 }, layers: [] }), "It")).toThrow("maxConfigBytes (8388608)");
  expect(() => parseDocument(bytes({ manifests: many(1001, blob) }), "It")).toThrow("(maxManifests)");
  expect(() => parseDocument(Buffer.alloc(4_194_305), "It")).toThrow("maxManifestBytes (4194304)");
  expect(() => parseConfig(bytes({ rootfs: { diff_ids: many(501, digest) } }), "It")).toThrow("(maxLayers)");
  expect(() => parseConfig(bytes({ rootfs: { diff_ids: [] }, config: { Env: many(4097, "A=1") } }), "It")).toThrow("(maxConfigWords)");
  // What is only shown is cut.
  expect(parseConfig(bytes({ rootfs: { diff_ids: [] }, config: { Labels: { "org.opencontainers.image.title": "t".repeat(5000) } } }), "It").title).toHaveLength(201);
});

test("which image of an index", () => {
  const entry = (name: string, platform?: string) => {
    const [os = "", architecture = "", variant] = platform?.split("/") ?? [];
    return { mediaType: "", digest: name, sizeBytes: 1, ...(platform !== undefined && { platform: { os, architecture, ...(variant !== undefined && { variant }) } }) };
  };
  const attestation = entry("attestation", "unknown/unknown");
  const amd64 = [entry("three", "linux/amd64/v3"), entry("two", "linux/amd64/v2"), entry("windows", "windows/amd64"), attestation];
  for (const [entries, platform, chosen] of [
    [[...amd64, entry("plain", "linux/amd64")], "linux/amd64", "plain"],
    [amd64, "linux/amd64", "three"],
    [[...amd64, entry("plain", "linux/amd64")], "linux/amd64/v3", "three"],
    [[...amd64, entry("plain", "linux/amd64")], "linux/amd64/v4", "three"],
    [[entry("plain", "linux/amd64"), amd64[2]!], "linux/amd64/v3", "plain"],
    [[entry("one", "linux/amd64/v1")], "linux/amd64", "one"],
    [[entry("arm", "linux/arm/v7"), entry("plain", "linux/arm64")], "linux/arm64/v8", "plain"],
    [[entry("eight", "linux/arm64/v8")], "linux/arm64", "eight"],
    [[entry("eight", "linux/arm64/v8"), entry("nine", "linux/arm64/v9")], "linux/arm64", "eight"],
    [[attestation, entry("only")], "linux/amd64", "only"],
  ] as const) expect(choosePlatform(entries, platform, "it").digest, `${platform} of ${entries.map(({ digest }) => digest).join(" ")}`).toBe(chosen);
  for (const [entries, platform, hint] of [
    [[entry("three", "linux/amd64/v3"), attestation], "linux/amd64/v2", "It has them for linux/amd64/v3."],
    [[attestation], "linux/amd64", "It says of none what it is for."],
    [[entry("a"), entry("b")], "linux/amd64", "It says of none what it is for."],
  ] as const) expect(() => choosePlatform(entries, platform, "it")).toThrow(expect.objectContaining({ code: "NOT_FOUND", hint }));
});

test("references", async () => {
  const whole = new Map([
    ["library/python", "docker.io/library/python:latest"],
    ["docker.io/python:3.12-slim", "docker.io/library/python:3.12-slim"],
    ["localhost:5000/team/ci@" + digest, `localhost:5000/team/ci@${digest}`],
    ["localhost/x:1", "localhost/x:1"],
    ["Registry.Example/x", "registry.example/x:latest"],
    ["[::1]:5000/x:1", "[::1]:5000/x:1"],
    ["ghcr.io/a/b__c/d.e-f:v1@" + digest, `ghcr.io/a/b__c/d.e-f:v1@${digest}`],
    ["/nowhere/layout:tag", "/nowhere/layout:tag"],
    ["-", "-"],
  ]);
  for (const [name, expected] of whole) expect(printReference(await parseImageName(name)), name).toBe(expected);
  const random = seeded(2);
  const pieces = ["docker.io", "/", ":", "@", digest, "a", "B", "..", ".", "-", "_", "%2f", "?", "#", "\\", " ", "\n", "é", "5000", "[::1]", "x".repeat(200)];
  for (let round = 0; round < 20_000; round++) {
    const name = Array.from({ length: 1 + random(7) }, () => pieces[random(pieces.length)]).join("");
    const parsed = await parseImageName(name).catch((error: unknown) => {
      if (!(error instanceof PyroError) || error.code !== "INVALID_ARGUMENT") throw error;
      return undefined;
    });
    if (parsed?.kind !== "registry") continue;
    expect(new URL(`https://${parsed.host}/v2/${parsed.repository}/`).href, name).toBe(`https://${parsed.host}/v2/${parsed.repository}/`); // nothing in it leads elsewhere
    expect(printReference(await parseImageName(printReference(parsed)))).toBe(printReference(parsed));
  }
});

test("challenges", () => {
  expect(parseChallenges('Bearer realm="https://auth.example/token?a=b,c",service=registry.example , scope="repository:a/b:pull,push", Basic realm="a \\"b\\""')).toEqual([
    { scheme: "bearer", parameters: new Map([["realm", "https://auth.example/token?a=b,c"], ["service", "registry.example"], ["scope", "repository:a/b:pull,push"]]) },
    { scheme: "basic", parameters: new Map([["realm", 'a "b"']]) },
  ]);
  expect(parseChallenges("Negotiate, Basic")).toEqual([{ scheme: "negotiate", parameters: new Map() }, { scheme: "basic", parameters: new Map() }]);
  const random = seeded(3);
  const pieces = ["Bearer", "realm", "=", '"', "\\", ",", " ", "x", "scope", "=\"a\"", "\t", "é", "=".repeat(50)];
  for (let round = 0; round < 20_000; round++) expect(parseChallenges(Array.from({ length: random(30) }, () => pieces[random(pieces.length)]).join("")).length).toBeLessThanOrEqual(16);
  expect(parseChallenges(`Bearer realm="${"\\".repeat(8000)}`).length).toBeLessThanOrEqual(1); // in no time
});

test("tar archives of several layers", { timeout: 120_000 }, async () => {
  let made = 0;
  for (let seed = 0; seed < 300; seed++) {
    const random = seeded(seed);
    const layers = adversarialLayers(seed).map((tar) => {
      const copy = Buffer.from(tar);
      // In the headers, most of the time, and with a checksum that still holds for some.
      for (let changes = random(3); changes > 0; changes--) copy[random(copy.length / 512) * 512 + random(157)] = random(256);
      return copy;
    });
    const path = directory.newName();
    try {
      await mergeLayers(layers.map((tar, index) => ({ name: `${index}`, open: () => stream(tar, 777) })), path);
      readErofs(path);
      made++;
    } catch (error) {
      if (!(error instanceof PyroError) || error.code !== "ENVIRONMENT_INVALID") throw error;
      expect(existsSync(path)).toBe(false);
    }
  }
  expect(made).toBeGreaterThan(10);
});

test("compressed layers: damage, bombs, and what the image says they are", { timeout: 120_000 }, async () => {
  const tar = archive({ name: "a", data: Buffer.alloc(100_000, "abc") });
  const packed = gzipSync(tar);
  const path = join(directory.path(), "layer");
  const read = async (data: Buffer, diffId = sha256(tar), limits?: Parameters<typeof openLayer>[1]) => {
    await writeFile(path, data);
    const parts: Uint8Array[] = [];
    for await (const part of openLayer({ digest, path, sizeBytes: data.length, diffId }, limits)) parts.push(part);
    return Buffer.concat(parts);
  };
  expect((await read(packed)).equals(tar)).toBe(true);
  expect((await read(tar)).equals(tar)).toBe(true);
  expect((await read(Buffer.concat([gzipSync(tar.subarray(0, 5000)), gzipSync(tar.subarray(5000))]))).equals(tar)).toBe(true);
  await expect(read(packed, digest)).rejects.toThrow("the image's configuration says sha256:aaaa");
  await expect(read(packed.subarray(0, packed.length - 20))).rejects.toMatchObject({ code: "ENVIRONMENT_INVALID" });
  const random = seeded(4);
  for (let round = 0; round < 300; round++) {
    const spoiled = Buffer.from(packed);
    spoiled[random(spoiled.length)] = random(256);
    await read(spoiled).then((found) => expect(found.equals(tar)).toBe(true), (error: unknown) => expect(error).toMatchObject({ code: "ENVIRONMENT_INVALID" }));
  }
  const bomb = gzipSync(Buffer.alloc(20 << 20));
  const small = { maxLayerTarBytes: 1 << 30, maxExpansionRatio: 100, freeBytes: 1 << 20 };
  await expect(read(bomb, digest, small)).rejects.toThrow("maxExpansionRatio (100)");
  await expect(read(bomb, digest, { ...small, maxExpansionRatio: 10_000, maxLayerTarBytes: 10 << 20 })).rejects.toThrow("maxLayerTarBytes (10485760)");
});

test("zstd of several frames, as layers that can be pulled by parts have it", async ({ skip }) => {
  skip(!(await has("zstd")), "zstd is not installed");
  const tar = archive({ name: "a", data: Buffer.alloc(300_000, "abc") }, { name: "b", data: "b" });
  const frames = [];
  for (const part of [tar.subarray(0, 1000), tar.subarray(1000, 200_000), tar.subarray(200_000)]) frames.push((await runChild("zstd", ["-q", "-c"], { input: part })).stdout);
  const skippable = Buffer.from([0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3]);
  const packed = Buffer.concat([skippable, frames[0]!, frames[1]!, skippable, frames[2]!, skippable, skippable]);
  const path = join(directory.path(), "frames");
  await writeFile(path, packed);
  const parts: Uint8Array[] = [];
  for await (const part of openLayer({ digest, path, sizeBytes: packed.length, diffId: sha256(tar) })) parts.push(part);
  expect(Buffer.concat(parts).equals(tar)).toBe(true);
  // Whatever the pieces it comes in, no piece of it goes on where a frame has ended.
  const ends = [11, 11 + frames[0]!.length, 11 + frames[0]!.length + frames[1]!.length, 22 + frames[0]!.length + frames[1]!.length, packed.length - 22, packed.length - 11, packed.length];
  for (const chunk of [1, 7, 1 << 20]) {
    const cuts: number[] = [];
    for await (const part of cutAtFrames(stream(packed, chunk))) cuts.push((cuts.at(-1) ?? 0) + part.length);
    expect(cuts.filter((each) => ends.includes(each))).toEqual(ends);
  }
  await expect(async () => {
    for await (const _ of cutAtFrames(stream(packed.subarray(0, -1), 100)));
  }).rejects.toMatchObject({ code: "ENVIRONMENT_INVALID" });
});

test("zstd, as Node before 22.15 reads it", { timeout: 120_000 }, async ({ skip }) => {
  skip(!(await has("zstd")), "zstd is not installed");
  const data = Buffer.concat([archive({ name: "a", data: Buffer.alloc(300_000, "abc") }), Buffer.from(Array.from({ length: 50_000 }, (_, index) => (index * index) >> 3))]);
  const compress = async (...flags: string[]) => (await runChild("zstd", ["-q", "-c", ...flags], { input: data })).stdout;
  const read = async (packed: Buffer, chunk = 1000) => {
    const parts: Uint8Array[] = [];
    for await (const part of unzstd(stream(packed, chunk))) parts.push(Buffer.from(part));
    return Buffer.concat(parts);
  };
  const frame = await compress("-3");
  for (const packed of [frame, await compress("-19"), await compress("--no-check"), await compress("--fast=5")]) expect((await read(packed)).equals(data)).toBe(true);
  expect((await read(frame, 1)).equals(data)).toBe(true);
  const skippable = Buffer.concat([Buffer.from([0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3]), frame, frame]);
  expect((await read(skippable)).equals(Buffer.concat([data, data]))).toBe(true);
  await expect(read(frame.subarray(0, frame.length - 5))).rejects.toMatchObject({ code: "ENVIRONMENT_INVALID" });
  const window = Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa0, 0x01, 0x00, 0x00]);
  await expect(read(window)).rejects.toThrow("maxZstdWindowBytes (134217728)");
  await expect(read(Buffer.concat([frame, window]))).rejects.toThrow("maxZstdWindowBytes (134217728)");
  const random = seeded(5);
  for (let round = 0; round < 100; round++) {
    const spoiled = Buffer.from(frame);
    spoiled[random(Math.min(spoiled.length, 200))] = random(256);
    await read(spoiled).then(() => {}, (error: unknown) => expect(error).toMatchObject({ code: "ENVIRONMENT_INVALID" }));
  }
});
