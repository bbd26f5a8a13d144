// UDP ports of the host that lead into the guest, and whom its answers reach.
import { Socket, createSocket } from "node:dgram";
import { once } from "node:events";
import { expect, test, vi } from "vitest";
import { Audit } from "../../src/net/audit.js";
import { Published } from "../../src/net/published.js";
import { Ipv4Packet } from "../../src/net/wire/ipv4.js";
import { readDatagram } from "../../src/net/wire/udp.js";
import { Frames } from "./peer.js";

test("an answer comes from the port that was asked, also where two ports lead to one of the guest's; who names no port gets none", async () => {
  const bind = vi.spyOn(Socket.prototype, "bind");
  const frames = new Frames();
  const published = new Published({ link: frames, audit: new Audit(undefined, () => {}), connected: () => {} });
  const open = () => published.open({ protocol: "udp", host_ip: "127.0.0.1", host_port: 0, guest_port: 53 });
  const ports = [(await open()).host_port, (await open()).host_port];
  const [socket] = bind.mock.contexts as Socket[];
  bind.mockRestore();

  const peer = createSocket("udp4").bind(0, "127.0.0.1");
  const packet = new Ipv4Packet();
  for (const port of ports) {
    peer.send("question", port, "127.0.0.1");
    let asked: Buffer | undefined;
    await expect.poll(() => (asked = frames.take()[0])).toBeDefined();
    packet.read(asked!, 14, asked!.length);
    const answered = once(peer, "message");
    expect(published.answer({ sourcePort: 53, destinationPort: readDatagram(packet)!.sourcePort, data: Buffer.from("answer") })).toBe(true);
    expect((await answered)[1]).toMatchObject({ port });
  }
  peer.close();

  socket!.emit("message", Buffer.from("question"), { address: "127.0.0.1", port: 0, family: "IPv4", size: 8 });
  expect(frames.take()).toEqual([]);
  published.closeAll();
});
