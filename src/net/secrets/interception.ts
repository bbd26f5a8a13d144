/** TLS of a guest to a host with a secret: it ends here, and goes on to the real server, whose certificate is checked as the guest would have. HTTP/1.1 alone is offered, as its heads can be changed. */
import { TLSSocket, connect, type SecureContext } from "node:tls";
import type { Duplex } from "node:stream";
import { Requests } from "../inspect/requests.js";
import type { Interception } from "./intercept.js";

export interface Proofs {
  /** What the guest's side is proved with, for a name. */
  contextFor(name: string): SecureContext;
  /** Certificates (PEM) that servers may prove themselves with. */
  trusted: string[];
}

const protocols = ["http/1.1"];

/** Gives a way to break it off. */
export function intercept({ contextFor, trusted }: Proofs, { guest, socket, name, head, received, failed }: Interception): () => void {
  let isOver = false;
  const fail = (reason: string) => {
    if (isOver) return;
    isOver = true;
    failed(reason);
    close();
  };
  const server = connect({ socket, servername: name, ALPNProtocols: protocols, ca: trusted });
  let client: TLSSocket | undefined;
  const close = () => {
    isOver = true;
    client?.destroy();
    guest.destroy();
    server.destroy();
  };
  server.on("error", (error) => fail(`TLS with ${name} failed: ${error.message}`));
  server.on("close", () => fail(`${name} closed the connection`));
  guest.on("error", () => {});
  server.once("secureConnect", () => {
    if (isOver) return;
    client = new TLSSocket(guest, { isServer: true, secureContext: contextFor(name), ALPNProtocols: protocols });
    client.on("error", (error) => fail(`TLS with the guest failed: ${error.message}`));
    const requests = new Requests({ head, forward: (bytes) => pass(bytes, client!, server), malformed: (reason) => fail(reason) });
    client.on("data", (chunk: Buffer) => requests.push(chunk));
    client.on("end", () => server.end());
    server.on("data", (chunk: Buffer) => {
      requests.answered(chunk);
      received(chunk.length);
      pass(chunk, server, client!);
    });
    server.on("end", () => {
      isOver = true; // in order: what closes from now on does so by itself
      client!.end();
    });
  });
  return close;
}

/** With back-pressure: `from` waits while `to` does not take more. */
function pass(bytes: Buffer, from: Duplex, to: Duplex): void {
  if (bytes.length === 0 || to.write(bytes) || from.isPaused()) return;
  from.pause();
  to.once("drain", () => from.resume());
}
