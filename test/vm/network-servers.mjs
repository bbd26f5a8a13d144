// The internet that network tests see: servers on addresses that look public, and some that don't. Run in a network namespace of its own:
//   node network-servers.mjs DIRECTORY
// DIRECTORY has cert.pem, key.pem and www/ (files that are served). Says `ready` and serves until its standard input ends.
// What was asked of the name server and of the web servers goes to standard output, a line each.
import { createHash } from "node:crypto";
import { createSocket } from "node:dgram";
import { createReadStream, readFileSync, statSync } from "node:fs";
import { createServer as createHttp } from "node:http";
import { createSecureServer } from "node:http2";
import { createServer as createTcp } from "node:net";
import { join, normalize } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";

const directory = process.argv[2];
const web = "93.184.216.34";
const other = "93.184.216.35";
const lan = "10.99.0.2";

/** What the name server knows; a function is asked anew each time. */
let flipped = false;
const names = {
  "www.example.com": [web],
  "alias.example.com": [web],
  "other.example.com": [other],
  "api.example.com": [web],
  "deep.sub.example.com": [other],
  "private.example.com": [lan],
  "loop.example.com": ["127.0.0.1"],
  "meta.example.com": ["169.254.169.254"],
  "mixed.example.com": [lan, web],
  "flip.example.com": () => (flipped ? [lan] : [web]), // once it has been visited, as who waits long for an answer asks again
};

function answer(message, log) {
  const labels = [];
  let at = 12;
  while (message[at] !== 0) {
    labels.push(message.subarray(at + 1, at + 1 + message[at]).toString("latin1"));
    at += 1 + message[at];
  }
  const type = message.readUInt16BE(at + 1);
  const name = labels.join(".").toLowerCase();
  log(`dns ${type} ${name}`);
  const known = names[name];
  const addresses = type === 1 && known !== undefined ? (typeof known === "function" ? known() : known) : [];
  const head = Buffer.alloc(12);
  message.copy(head, 0, 0, 2);
  head.writeUInt16BE(0x8180 | (known === undefined ? 3 : 0), 2);
  head.writeUInt16BE(1, 4);
  head.writeUInt16BE(addresses.length, 6);
  const records = addresses.map((address) => Buffer.concat([Buffer.from("c00c00010001000000000004", "hex"), Buffer.from(address.split(".").map(Number))]));
  return Buffer.concat([head, message.subarray(12, at + 5), ...records]);
}

const log = (line) => process.stdout.write(`${line}\n`);
/** Bound to one address, or it would answer from another one than it was asked at. */
function datagrams(port, address, reply) {
  const socket = createSocket("udp4");
  socket.on("message", (message, from) => socket.send(reply(message), from.port, from.address));
  return new Promise((resolve, reject) => socket.once("error", reject).bind(port, address, resolve));
}

/** The same bytes each time: blocks of 64 KiB that differ from one another. */
function* blocks(total) {
  const block = Buffer.alloc(65_536);
  for (let at = 0, number = 0; at < total; at += block.length, number++) {
    for (let offset = 0; offset < block.length; offset += 4) block.writeUInt32LE((Math.imul(offset + number, 2_654_435_761) ^ number) >>> 0, offset);
    yield Buffer.from(block.subarray(0, Math.min(block.length, total - at)));
  }
}

async function serve(request, response) {
  const host = request.headers[":authority"] ?? request.headers.host;
  const url = new URL(request.url, "http://x");
  log(`http/${request.httpVersion} ${request.method} ${host} ${url.pathname} authorization=${request.headers.authorization ?? ""}`);
  if (host === "flip.example.com") flipped = true;
  if (url.pathname === "/hello") return void response.end(`hello from ${host} over HTTP/${request.httpVersion}\n`);
  if (url.pathname === "/headers") return void response.end(JSON.stringify(request.headers));
  if (url.pathname === "/redirect") return void response.writeHead(302, { location: url.searchParams.get("to") }).end();
  if (url.pathname.startsWith("/bytes/")) return void (await pipeline(Readable.from(blocks(Number(url.pathname.slice(7)))), response).catch(() => {}));
  if (url.pathname === "/drip") {
    // A byte now and then, so that it takes as long as the test wants.
    for (let n = 0; n < Number(url.searchParams.get("times")); n++) {
      response.write(".");
      await new Promise((resolve) => setTimeout(resolve, Number(url.searchParams.get("ms"))));
    }
    return void response.end("\n");
  }
  if (url.pathname === "/sink") {
    const hash = createHash("sha256");
    let bytes = 0;
    for await (const chunk of request) {
      hash.update(chunk);
      bytes += chunk.length;
    }
    return void response.end(`${bytes} ${hash.digest("hex")}\n`);
  }
  const file = join(directory, "www", normalize(url.pathname), url.pathname.endsWith("/") ? "index.html" : "");
  const stat = statSync(file, { throwIfNoEntry: false });
  if (!stat?.isFile()) return void response.writeHead(404).end();
  response.writeHead(200, { "content-length": stat.size, ...(file.endsWith(".html") && { "content-type": "text/html" }) });
  await pipeline(createReadStream(file), response).catch(() => {});
}

const http = createHttp({ keepAliveTimeout: 900_000 }, serve);
http.on("upgrade", (request, socket) => {
  // RFC 6455: the handshake; behind it what comes is given back as it is.
  const accept = createHash("sha1").update(`${request.headers["sec-websocket-key"]}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest("base64");
  socket.write(`HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`);
  socket.on("error", () => {});
  socket.pipe(socket);
});
const https = createSecureServer({ cert: readFileSync(join(directory, "cert.pem")), key: readFileSync(join(directory, "key.pem")), allowHTTP1: true }, serve);
const echo = createTcp({ allowHalfOpen: true }, (socket) => {
  socket.on("error", () => {});
  socket.pipe(socket);
});
// TCP at port 53, for those who would ask another resolver that way.
const tcpDns = createTcp((socket) => {
  log("dns over tcp");
  socket.destroy();
});

const listening = (server, ...where) => new Promise((resolve, reject) => server.once("error", reject).listen(...where, resolve));
await Promise.all([datagrams(53, "9.9.9.9", (message) => answer(message, log)), datagrams(53, "8.8.8.8", (message) => answer(message, log)), datagrams(7, web, (message) => message), listening(http, 80, "0.0.0.0"), listening(https, 443, "0.0.0.0"), listening(echo, 7, "0.0.0.0"), listening(tcpDns, 53, "0.0.0.0")]);
log("ready");
process.stdin.on("end", () => process.exit(0)).resume();
