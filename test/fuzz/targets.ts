/** Every decoder on the host of bytes that a guest, a monitor, an image or a registry chose. One that is added here is run by the tests and by `npm run fuzz`. */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Duplex } from "node:stream";
import { gzipSync } from "node:zlib";
import { harmlessLine } from "../../src/base/harmless.js";
import { afterAll } from "vitest";
import { FrameDecoder, FrameType, MAX_PAYLOAD, encodeFrame, guestFrames } from "../../src/channel/codec.js";
import { HelloSearch } from "../../src/channel/connect.js";
import { parseListing } from "../../src/channel/files.js";
import type { Channel } from "../../src/channel/index.js";
import { jobsOf } from "../../src/channel/jobs.js";
import { encodeMessage, parseMessage, u32, u64, u8, type TagName } from "../../src/channel/message.js";
import { readTree } from "../../src/channel/tree-reader.js";
import { findPayload } from "../../src/environments/bzimage.js";
import { parseDpkgStatus } from "../../src/environments/dpkg-status.js";
import { writeErofs } from "../../src/environments/erofs.js";
import { choosePlatform, parseConfig, parseDocument } from "../../src/environments/images/documents.js";
import { openLayer } from "../../src/environments/images/layer-tar.js";
import { parseImageName, printReference } from "../../src/environments/images/reference.js";
import { unzstd } from "../../src/environments/images/zstd.js";
import { mergeLayers } from "../../src/environments/layers.js";
import { readModuleInfo } from "../../src/environments/modules.js";
import { parseChallenges } from "../../src/environments/registry/challenge.js";
import { readTar } from "../../src/environments/tar.js";
import { parseQuestion } from "../../src/net/dns/message.js";
import { readClientHello } from "../../src/net/inspect/client-hello.js";
import { encodeRequestHead, parseRequestHead } from "../../src/net/inspect/request-head.js";
import { Requests } from "../../src/net/inspect/requests.js";
import { Ipv4Packet } from "../../src/net/wire/ipv4.js";
import { readDatagram } from "../../src/net/wire/udp.js";
import { ConsoleLog, harmless } from "../../src/vmm/console.js";
import { Qmp } from "../../src/vmm/qmp.js";
import { connected, settled } from "../channel/fake-guest.js";
import { readErofs } from "../environments/erofs-reader.js";
import { adversarialLayers } from "../environments/layers-corpus.js";
import { sha256 } from "../environments/image-maker.js";
import { archive, stream } from "../environments/tar-maker.js";
import { mutateTar, tarSeeds } from "../environments/tar-mutations.js";
import type { Random, Target } from "./engine.js";

const directory = mkdtempSync(join(tmpdir(), "pyro-fuzz-"));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

/** Throws what is no PyroError, so that it counts as a fault. */
function check(holds: boolean, what: string): void {
  if (!holds) throw new Error(what);
}

function vectors(file: string, direction?: string): { state: string; bytes: Buffer }[] {
  const text = readFileSync(new URL(`../../protocol/vectors/${file}.txt`, import.meta.url), "utf8");
  return text.split("\n").filter((line) => line !== "" && !line.startsWith("#")).map((line) => line.split(" ")).filter((words) => direction === undefined || words[1] === direction).map(([, , , state, bytes]) => ({ state: state!, bytes: unpacked(bytes!) })).filter(({ bytes }) => bytes.length < 300_000);
}

function unpacked(text: string): Buffer {
  if (text === "-") return Buffer.alloc(0);
  return Buffer.concat(text.split(",").map((token) => {
    const [hex, count = "1"] = token.split("*");
    const one = Buffer.from(hex!, "hex");
    return Buffer.alloc(one.length * Number(count), one);
  }));
}

async function* pieces(bytes: Buffer, step: number): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; at += step) yield bytes.subarray(at, at + step);
}

const nonce = Buffer.from(Array.from({ length: 16 }, (_, at) => at));
const hello = encodeFrame(FrameType.HELLO, 0, encodeMessage([["VERSION", Buffer.of(1, 0)], ["NONCE", nonce], ["KERNEL", Buffer.from("6.1")], ["PROGRAM", Buffer.from("2")]]));
const fault = encodeFrame(FrameType.FAULT, 0, encodeMessage([["MESSAGE", Buffer.from("no")]]));
const resultFields: readonly (readonly TagName[])[] = [["DURATION", "BYTES_1", "BYTES_2", "EXIT_CODE", "EXIT_SIGNAL"], ["BYTES_1"], ["STAT", "TARGET"], ["CLOCK"], ["ERRNO", "STAGE", "MESSAGE"], ["JOB_LIST"], ["BYTES_1", "ENTRIES", "SKIPPED"]];

/** What a host may have asked, for a conversation. */
const requests: Readonly<Record<string, (channel: Channel) => unknown>> = {
  exec: (channel) => channel.exec({ argv: ["cat"] }).stdout.resume(),
  "exec-input": (channel) => channel.exec({ argv: ["cat"], stdin: true }).stdin!.write("x"),
  read: (channel) => channel.readFile("/a").resume(),
  write: (channel) => channel.writeFile("/a", Buffer.from("x")),
  list: (channel) => channel.list("/a"),
  stat: (channel) => channel.stat("/a"),
  pack: async (channel) => {
    for await (const entry of channel.packTree("/a", { maxEntries: 100, maxContentBytes: 100_000 })) for await (const chunk of entry.content ?? []) void chunk;
  },
  attach: (channel) => channel.attachJob("a"),
  jobs: (channel) => channel.listJobs(),
  stats: (channel) => channel.stats(),
  clock: (channel) => channel.setClock(),
  ping: (channel) => channel.ping(),
};
const requestNames = Object.keys(requests);

const conversation: Target = {
  name: "conversation",
  sources: ["channel/channel.ts", "channel/mux.ts", "channel/stream.ts", "channel/output.ts", "channel/input.ts", "channel/process.ts", "channel/copy.ts", "channel/stats.ts"],
  // The first byte says what was asked.
  seeds: vectors("sequences", "guest").filter(({ bytes }) => bytes.length < 10_000).map(({ state, bytes }) => Buffer.concat([Buffer.of(Math.max(0, requestNames.indexOf(state.split(":")[1]!))), bytes])),
  words: [encodeFrame(FrameType.END_1, 1), encodeFrame(FrameType.END_2, 1), encodeFrame(FrameType.STARTED, 1, u32(7)), encodeFrame(FrameType.CREDIT_0, 1, u32(9)), encodeFrame(FrameType.DATA_1, 1, Buffer.from("x")), encodeFrame(FrameType.RESULT, 1, encodeMessage([["EXIT_CODE", u8(0)], ["DURATION", u64(1n)], ["BYTES_1", u64(1n)], ["BYTES_2", u64(0n)]])), hello, fault],
  run: async (bytes, random) => {
    const { guest, channel } = await connected();
    const asked = requests[requestNames[(bytes[0] ?? 0) % requestNames.length]!]!(channel);
    if (asked instanceof Promise) asked.catch(() => {});
    const step = random(3) === 0 ? 1 + random(9) : 1 << 20;
    for await (const part of pieces(bytes.subarray(1), step)) guest.say(part);
    await settled();
    channel.close();
    const end = await channel.closed;
    if (end !== undefined) throw end;
  },
};

function fakeMonitor(): { stream: Duplex; asked: Promise<unknown> } {
  const stream = new Duplex({ read() {}, write: (_chunk, _encoding, callback) => callback() });
  const asked = new Qmp(stream).execute("query-status");
  return { stream, asked };
}

const archived = archive({ name: "a", data: "b" });
const ipv4 = Buffer.from("45000023000040004011b5b50a0000020a00000108000035000f0000", "hex");

export const targets: readonly Target[] = [
  {
    name: "frames",
    sources: ["channel/codec.ts"],
    seeds: vectors("frames", "guest").map(({ bytes }) => bytes),
    run: (bytes, random) => {
      const decoder = new FrameDecoder(guestFrames);
      let total = 0;
      for (let at = 0; at < bytes.length; ) {
        const step = 1 + random(random(2) === 0 ? 12 : bytes.length);
        decoder.push(bytes.subarray(at, at + step), ({ payload }) => {
          total += payload.length;
          check(payload.length <= MAX_PAYLOAD, "a payload over its limit");
        });
        at += step;
      }
      check(total <= bytes.length, "more came out than went in");
    },
  },
  {
    name: "hello",
    sources: ["channel/connect.ts"],
    seeds: [hello, fault, Buffer.concat([Buffer.alloc(50, 0x81), hello, Buffer.from("rest")])],
    words: [hello, nonce, Buffer.of(0x81), Buffer.of(0x84)],
    run: (bytes, random) => {
      const search = new HelloSearch(nonce, random(2) === 0);
      const step = 1 + random(bytes.length + 1);
      for (let at = 0; at < bytes.length; at += step) {
        const found = search.push(bytes.subarray(at, at + step));
        if (found === undefined) continue;
        check(!/[\p{Cc}]/u.test(found.hello.kernel + found.hello.program), "a control character in a hello");
        return;
      }
    },
  },
  {
    name: "messages",
    sources: ["channel/message.ts"],
    seeds: vectors("messages", "guest").map(({ bytes }) => bytes),
    run: (bytes, random) => parseMessage(bytes, "RESULT", [], resultFields[random(resultFields.length)]),
  },
  conversation,
  {
    name: "tree",
    sources: ["channel/tree-reader.ts", "channel/tree.ts"],
    seeds: vectors("trees").map(({ bytes }) => bytes).filter(({ length }) => length < 100_000),
    run: async (bytes, random) => {
      for await (const entry of readTree(pieces(bytes, 1 + random(200)), { maxEntries: 1000, maxContentBytes: 1e6 })) {
        check(!entry.path.toString("latin1").split("/").some((name) => name === ".." || name === "."), "a path that leads elsewhere");
        if (entry.content !== undefined && random(2) === 0) for await (const chunk of entry.content) check(chunk.length <= MAX_PAYLOAD, "a chunk over its limit");
      }
    },
  },
  {
    name: "listing",
    sources: ["channel/files.ts", "channel/jobs.ts"],
    seeds: [Buffer.concat([Buffer.of(1, 0), Buffer.from("a"), Buffer.alloc(48)]), Buffer.concat([Buffer.of(1), Buffer.from("j"), Buffer.of(2, 0), Buffer.from("ls"), Buffer.alloc(38)])],
    run: (bytes, random) => {
      if (random(2) === 0) return jobsOf(new Map([["JOB_LIST", bytes]]));
      for (const { name } of parseListing(bytes)) check(name.length > 0 && !name.includes(0x2f), "a name that is a path");
      return undefined;
    },
  },
  {
    name: "qmp",
    sources: ["vmm/qmp.ts"],
    seeds: ['{"QMP": {"version": {}, "capabilities": []}}\n{"return": {}, "id": 1}\n{"return": {"status": "running"}, "id": 2}\n', '{"return": {}, "id": 1}\n{"error": {"class": "GenericError", "desc": "no"}, "id": 2}\n', '{"event": "STOP", "data": {}}\n'].map((text) => Buffer.from(text)),
    words: ['{"return":', '"id":', "1", "2", "}", "{", "[".repeat(40), "]", "\n", '"', "\\", '{"event":"X"}', "\u0000", "null", "1e999", '"__proto__":'],
    run: async (bytes, random) => {
      const { stream: monitor, asked } = fakeMonitor();
      const outcome = asked.then(() => undefined, (error: unknown) => error);
      const step = 1 + random(bytes.length + 1);
      for await (const part of pieces(bytes, step)) monitor.push(part);
      monitor.push(null);
      monitor.on("end", () => monitor.destroy());
      const error = await outcome;
      if (error !== undefined && (error as { code?: string }).code !== "INTERNAL") throw error;
    },
  },
  {
    name: "tar",
    sources: ["environments/tar.ts", "environments/tar-number.ts", "environments/tar-pax.ts", "environments/tar-sparse.ts", "environments/acl.ts", "environments/erofs.ts", "environments/erofs-layout.ts", "environments/erofs-metadata.ts", "environments/tree.ts"],
    seeds: tarSeeds,
    mutate: mutateTar,
    run: async (bytes, random) => {
      const path = join(directory, "tar.erofs");
      await writeErofs(readTar(stream(bytes, 1 + random(2000))), path, { limits: { maxImageBytes: 1 << 24, maxMetadataBytes: 1 << 22 } });
      readErofs(path);
      rmSync(path);
    },
  },
  {
    name: "layers",
    sources: ["environments/layers.ts", "environments/tree.ts"],
    seeds: Array.from({ length: 20 }, (_, seed) => Buffer.of(seed)),
    // The bytes choose among layers that are made to be merged wrongly.
    mutate: (_seed, random) => Buffer.from(Array.from({ length: 4 }, () => random(256))),
    run: async (bytes, random) => {
      const layers = adversarialLayers(bytes.reduce((sum, byte) => sum * 256 + byte, 0)).map((tar) => (random(3) === 0 ? mutateTar(tar, random) : tar));
      const path = join(directory, "layers.erofs");
      await mergeLayers(layers.map((tar, index) => ({ name: `${index}`, open: () => stream(tar, 777) })), path);
      readErofs(path);
      rmSync(path);
    },
  },
  {
    name: "documents",
    sources: ["environments/images/documents.ts"],
    seeds: documentSeeds(),
    words: ["null", "-1", "1e300", '""', '"../.."', '"\\u0000"', "[]", "{}", '"digest":', '"size":', '"layers":', '"config":', '"manifests":', '"__proto__":', `"sha256:${"a".repeat(64)}"`, "[".repeat(100), "9007199254740993"],
    run: (bytes, random) => {
      if (random(3) === 0) return parseConfig(bytes, "it");
      const document = parseDocument(bytes, "it");
      return document.kind === "index" ? choosePlatform(document.manifests, "linux/amd64", "it") : document;
    },
  },
  {
    name: "references",
    sources: ["environments/images/reference.ts", "environments/registry/challenge.ts"],
    seeds: ["docker.io/library/python:3.12", `localhost:5000/team/ci@sha256:${"a".repeat(64)}`, "[::1]:5000/x:1", 'Bearer realm="https://auth.example/token",service="a b", Basic realm="\\""'].map((text) => Buffer.from(text)),
    words: ["/", ":", "@", "..", "%2f", "?", "#", "\\", " ", "\n", "é", "Bearer", "realm", "=", '"', ","],
    run: async (bytes) => {
      const text = bytes.toString("latin1").slice(0, 4000);
      check(parseChallenges(text).length <= 16, "too many challenges");
      const parsed = await parseImageName(text);
      if (parsed.kind !== "registry") return;
      const { pathname, username, search, hash } = new URL(`https://${parsed.host}/v2/${parsed.repository}/`);
      check(pathname === `/v2/${parsed.repository}/` && username + search + hash === "", "a reference that leads elsewhere");
      check(printReference(await parseImageName(printReference(parsed))) === printReference(parsed), "a reference that is another one when it is read again");
    },
  },
  {
    name: "compressed",
    sources: ["environments/images/layer-tar.ts", "environments/images/zstd.ts"],
    seeds: [archived, gzipSync(archive({ name: "a", data: Buffer.alloc(9000, "abc") })), Buffer.from("28b52ffd2405290000616263646533cf4f3c", "hex"), Buffer.from([0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3])],
    run: async (bytes, random) => {
      const limits = { maxLayerTarBytes: 1 << 20, maxExpansionRatio: 100, freeBytes: 1 << 16 };
      let total = 0;
      if (bytes[0] === 0x28 && random(2) === 0) {
        for await (const part of unzstd(stream(bytes, 1 + random(99)))) if ((total += part.length) > 1 << 22) return;
        return;
      }
      const path = join(directory, "layer");
      await writeFile(path, bytes);
      const digest = bytes.length === archived.length ? sha256(archived) : `sha256:${"a".repeat(64)}`;
      for await (const part of openLayer({ digest, path, sizeBytes: bytes.length, diffId: digest }, limits)) check((total += part.length) <= (1 << 20) + (1 << 18), "more than the limit came out");
    },
  },
  {
    name: "console",
    sources: ["vmm/console.ts", "base/harmless.ts"],
    seeds: ["\x1b[31mred\x1b[0m\r\n", "\x1b]0;title\x07", "\x1bP1;2q\x1b\\", "\u009b2J", "a\u202eb", "\x1b[6n"].map((text) => Buffer.from(text)),
    words: ["\x1b", "[", "]", "\x07", "\x9c", "\u009b", "\r", "\n", "\u202e", "\u200b", "\ufeff", "8;;http://x\x1b\\", "0123456789".repeat(5)],
    run: (bytes) => {
      const log = new ConsoleLog();
      for (let at = 0; at < bytes.length; at += 7) log.add(bytes.subarray(at, at + 7));
      // eslint-disable-next-line no-control-regex -- what a terminal would act on
      const steers = /[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]/;
      check(!steers.test(log.tail()), "something that steers a terminal in a console's log");
      check(!steers.test(harmless(bytes)), "something that steers a terminal");
      check(!/[\n\t]/.test(harmlessLine(bytes.toString("utf8"), 500)), "more than a line");
    },
  },
  {
    name: "dns",
    sources: ["net/dns/message.ts"],
    seeds: [Buffer.from("000101000001000000000001076578616d706c6503636f6d00000100010000291000000000000000", "hex"), Buffer.from("000101000001000000000000c00c00010001", "hex")],
    words: [Buffer.of(0xc0, 0x0c), Buffer.of(0), Buffer.of(63), Buffer.of(0, 0, 41)],
    run: (bytes) => {
      const question = parseQuestion(bytes);
      if (question !== undefined && "name" in question) check(question.name.length <= 1024 && question.maxBytes >= 512, "a name over its limit");
    },
  },
  {
    name: "http",
    sources: ["net/inspect/request-head.ts", "net/inspect/requests.ts"],
    seeds: ["GET / HTTP/1.1\r\nHost: a.example\r\n\r\n", "POST http://a.example/ HTTP/1.1\r\nHost: a.example\r\nContent-Length: 3\r\n\r\nabcGET /b HTTP/1.1\r\nHost: a.example\r\n\r\n", "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nabcde\r\n0\r\nTrailer: x\r\n\r\n", "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", "CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n"].map((text) => Buffer.from(text)),
    words: ["\r\n", "\n", "\r", " ", "\t", ":", "\0", "Host: b\r\n", "Content-Length: 1\r\n", "Transfer-Encoding: chunked\r\n", "HTTP/1.0", "ffffffff\r\n", "0\r\n\r\n", "@", "GET "],
    run: (bytes, random) => {
      const head = parseRequestHead(bytes);
      if (typeof head !== "string") {
        const again = parseRequestHead(encodeRequestHead(head));
        check(typeof again !== "string" && JSON.stringify([again.hosts, again.body, again.target]) === JSON.stringify([head.hosts, head.body, head.target]), "a request that is another one when it is read again");
      }
      let refused = false;
      let forwarded = 0;
      const requests = new Requests({
        head: () => ({ allowed: !(refused ||= random(8) === 0), changed: random(4) === 0 }),
        forward: (_bytes, credit) => {
          check(!refused, "something is forwarded after a refusal");
          forwarded += credit;
        },
        malformed: () => void (refused = true),
      });
      for (let at = 0; at < bytes.length; ) {
        const step = 1 + random(40);
        requests.push(bytes.subarray(at, at + step));
        if (random(4) === 0) requests.answered(Buffer.from(random(2) === 0 ? "HTTP/1.1 101 x" : "HTTP/1.1 200 x"));
        at += step;
      }
      check(forwarded <= bytes.length, "more is forwarded than came");
    },
  },
  {
    name: "tls",
    sources: ["net/inspect/client-hello.ts"],
    seeds: [clientHello()],
    words: [Buffer.of(22, 3, 1), Buffer.of(0, 0), "example", Buffer.of(0xff, 0xff)],
    run: (bytes) => {
      const read = readClientHello(bytes);
      if (typeof read !== "string" && read.name !== undefined) check(read.name.length <= 255 && read.name === read.name.toLowerCase(), "a name that none can be");
    },
  },
  {
    name: "packets",
    sources: ["net/wire/ipv4.ts", "net/wire/udp.ts", "net/wire/checksum.ts"],
    seeds: [Buffer.concat([ipv4, Buffer.alloc(7)]), ipv4],
    mutate: (seed, random) => withChecksum(spoil(seed, random), random),
    run: (bytes) => {
      const packet = new Ipv4Packet();
      if (!packet.read(bytes, 0, bytes.length)) return;
      check(packet.payload <= packet.end && packet.end <= bytes.length, "a packet that ends outside of its frame");
      const datagram = readDatagram(packet);
      if (datagram !== undefined) check(datagram.data.length <= bytes.length, "a datagram longer than its packet");
    },
  },
  {
    // Signed by Debian where it is fetched; a user's own kernel is not.
    name: "kernel",
    sources: ["environments/bzimage.ts", "environments/modules.ts", "environments/dpkg-status.ts"],
    seeds: [Buffer.from("Package: a\nStatus: install ok installed\nVersion: 1\nArchitecture: amd64\n\n"), elf(), bzimage()],
    words: ["\n\n", "Package: ", "Status: install ok installed", Buffer.alloc(8, 0xff), "depends=a,b\0", "vermagic=6.1\0", Buffer.from("HdrS")],
    run: (bytes, random) => [() => parseDpkgStatus(bytes.toString("latin1")), () => readModuleInfo(bytes, "it"), () => findPayload(bytes)][bytes[0] === 0x7f ? 1 : bytes.length > 0x210 ? 2 : random(3)]!(),
  },
];

function spoil(seed: Buffer, random: Random): Buffer {
  const bytes = Buffer.from(random(4) === 0 ? seed.subarray(0, random(seed.length) + 1) : seed);
  for (let changes = random(4); changes > 0; changes--) bytes[random(bytes.length)] = random(256);
  return bytes;
}

/** Most of the time right, or hardly anything gets past it. */
function withChecksum(bytes: Buffer, random: Random): Buffer {
  if (bytes.length < 20 || random(8) === 0) return bytes;
  bytes.writeUInt16BE(0, 10);
  let sum = 0;
  for (let at = 0; at < 20; at += 2) sum += bytes.readUInt16BE(at);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  bytes.writeUInt16BE(~sum & 0xffff, 10);
  return bytes;
}

function documentSeeds(): Buffer[] {
  const digest = `sha256:${"a".repeat(64)}`;
  const oci = "application/vnd.oci.image";
  return [
    { schemaVersion: 2, mediaType: `${oci}.index.v1+json`, manifests: [{ mediaType: `${oci}.manifest.v1+json`, digest, size: 7, platform: { os: "linux", architecture: "amd64" } }] },
    { schemaVersion: 2, mediaType: `${oci}.manifest.v1+json`, config: { mediaType: `${oci}.config.v1+json`, digest, size: 7 }, layers: [{ mediaType: `${oci}.layer.v1.tar+gzip`, digest, size: 9 }] },
    { os: "linux", architecture: "amd64", rootfs: { type: "layers", diff_ids: [digest] }, config: { Env: ["A=1"], User: "1:2", WorkingDir: "/x", Entrypoint: ["/a"], Cmd: null } },
  ].map((each) => Buffer.from(JSON.stringify(each)));
}

/** TLS' first message with the name of a server (RFC 8446, 4.1.2). */
function clientHello(): Buffer {
  const name = Buffer.from("www.example.org");
  const entry = Buffer.concat([Buffer.of(0, 0, name.length), name]);
  const extension = Buffer.concat([Buffer.of(0, 0, 0, entry.length + 2, 0, entry.length), entry]);
  const body = Buffer.concat([Buffer.of(3, 3), Buffer.alloc(32, 7), Buffer.of(0, 0, 2, 0x13, 1, 1, 0, 0, extension.length), extension]);
  const message = Buffer.concat([Buffer.of(1, 0, 0, body.length), body]);
  return Buffer.concat([Buffer.of(22, 3, 1, 0, message.length), message]);
}

/** A module's beginning: an ELF header of 64 bits with sections behind it. */
function elf(): Buffer {
  const bytes = Buffer.alloc(64 + 3 * 64 + 64);
  bytes.write("\x7fELF\x02\x01\x01", 0, "latin1");
  bytes.writeBigUInt64LE(64n, 0x28);
  bytes.writeUInt16LE(64, 0x3a);
  bytes.writeUInt16LE(3, 0x3c);
  bytes.writeUInt16LE(2, 0x3e);
  const names = 256;
  bytes.write("\0.modinfo\0.shstrtab\0", names, "latin1");
  bytes.writeUInt32LE(1, 64 + 64);
  bytes.writeBigUInt64LE(BigInt(names + 32), 64 + 64 + 24);
  bytes.writeBigUInt64LE(20n, 64 + 64 + 32);
  bytes.writeUInt32LE(10, 64 + 128);
  bytes.writeBigUInt64LE(BigInt(names), 64 + 128 + 24);
  bytes.writeBigUInt64LE(30n, 64 + 128 + 32);
  bytes.write("vermagic=6.1 x\0name=a\0", names + 32, "latin1");
  return bytes;
}

function bzimage(): Buffer {
  const bytes = Buffer.alloc(4096);
  bytes[0x1f1] = 1;
  bytes.write("HdrS", 0x202, "latin1");
  bytes.writeUInt16LE(0x20f, 0x206);
  bytes.writeUInt32LE(16, 0x248);
  bytes.writeUInt32LE(64, 0x24c);
  bytes.writeUInt32LE(0x184c2102, 1024 + 16);
  return bytes;
}
