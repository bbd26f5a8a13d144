// A guest spoken to without pyro, in the protocol's bytes by hand (protocol/PROTOCOL.md): the floor of what a command can cost.

/** A field of a message (protocol/PROTOCOL.md, Messages). */
export function field(tag, bytes) {
  const head = Buffer.alloc(5);
  head[0] = tag;
  head.writeUInt32LE(bytes.length, 1);
  return Buffer.concat([head, bytes]);
}

export function frame(type, stream, payload) {
  const header = Buffer.alloc(8);
  header.writeUInt32LE((payload.length << 8) | type, 0);
  header.writeUInt32LE(stream, 4);
  return Buffer.concat([header, payload]);
}

export function message(type, stream, ...fields) {
  return frame(type, stream, Buffer.concat([...fields, Buffer.from([0xff])]));
}

export function sync() {
  return message(0x01, 0, field(0x01, Buffer.from([1, 0])), field(0x02, Buffer.from([1, 0])), field(0x04, Buffer.alloc(16, 7)));
}

/** A request to execute `argv`, with a pipe as its standard input or without. */
export function exec(stream, argv, stdin = false) {
  return message(0x03, stream, field(0x08, Buffer.from([1])), ...argv.map((word) => field(0x10, Buffer.from(word))), field(0x15, Buffer.from([stdin ? 1 : 0])));
}

/** SYNC, HELLO, a request to execute /bin/true, its result. */
export function askTrue(port) {
  port.write(sync());
  port.write(exec(1, ["/bin/true"]));
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
