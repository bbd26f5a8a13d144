/** What it takes to take over a connection. Its types stand apart, as TLS is loaded only for a VM that has secrets. */
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import type { RequestHead } from "../inspect/request-head.js";

export interface Interception {
  /** The guest's bytes, from its hello on. */
  guest: Duplex;
  /** Connected to the server; nobody else reads it. */
  socket: Socket;
  name: string;
  head(head: RequestHead): { allowed: boolean; changed: boolean };
  /** The server's answer, for the count. */
  received(bytes: number): void;
  /** It can't go on; both sides are to be broken off. */
  failed(reason: string): void;
}

/** Gives a way to break it off. */
export type Intercept = (interception: Interception) => () => void;
