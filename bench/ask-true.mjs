// A guest spoken to without pyro: the floor of what a command can cost.

/** SYNC, HELLO, a request to execute /bin/true, its result: the protocol's bytes by hand (protocol/PROTOCOL.md). */
export function askTrue(port) {
  const field = (tag, bytes) => Buffer.concat([Buffer.from([tag, bytes.length, 0, 0, 0]), bytes]);
  const frame = (type, stream, ...fields) => {
    const payload = Buffer.concat([...fields, Buffer.from([0xff])]);
    const header = Buffer.alloc(8);
    header.writeUInt32LE((payload.length << 8) | type, 0);
    header.writeUInt32LE(stream, 4);
    return Buffer.concat([header, payload]);
  };
  port.write(frame(0x01, 0, field(0x01, Buffer.from([1, 0])), field(0x02, Buffer.from([1, 0])), field(0x04, Buffer.alloc(16, 7))));
  port.write(frame(0x03, 1, field(0x08, Buffer.from([1])), field(0x10, Buffer.from("/bin/true")), field(0x15, Buffer.from([0]))));
  return new Promise((resolve) => {
    let bytes = Buffer.alloc(0);
    port.on("data", (chunk) => {
      bytes = Buffer.concat([bytes, chunk]);
      while (bytes.length >= 8) {
        const length = bytes.readUInt32LE(0) >>> 8;
        if (bytes.length < 8 + length) return;
        if (bytes[0] === 0x84) throw new Error(`the guest complains: ${bytes.subarray(8, 8 + length)}`);
        if (bytes[0] === 0x83) return resolve();
        bytes = bytes.subarray(8 + length);
      }
    });
  });
}
