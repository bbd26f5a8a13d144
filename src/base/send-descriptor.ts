/** Descriptors over a connected socket (SCM_RIGHTS of unix(7)), which Node can't send. */
import type { Duplex } from "node:stream";
import { keepChild } from "./child.js";
import { nativeProgram } from "./paths.js";

/**
 * Writes `text` to `socket` and with it a descriptor: one end of a new pair of sockets, whose other end this is. All that was written to the socket
 * before must be gone. That it could not be sent shows as an end of what is returned.
 */
export async function sendDescriptor(socket: Duplex, text: string): Promise<Duplex> {
  const sender = await keepChild(nativeProgram("pyro-keeper"), ["send", text], { stdio: [socket, "ignore", "ignore", "pipe"] });
  socket.resume(); // Node stops reading what it hands to a child
  return sender.stdio[3]!;
}
