/** The head of an HTTP/1 request (RFC 9112), read as strictly as it is written by honest clients: where two readings are possible, it is refused. */

export const headLimits = { maxBytes: 65_536, maxHeaders: 256 } as const;

export interface RequestHead {
  method: string;
  target: string;
  /** The minor version: 0 or 1. */
  minor: number;
  /** As they stand there, in their order. */
  headers: [name: string, value: string][];
  /** Whatever it names as the server: the Host header, and the authority in the target. Usually one. */
  hosts: string[];
  /** How its body ends. */
  body: { type: "none" } | { type: "length"; bytes: number } | { type: "chunked" };
}

const token = "[!#$%&'*+.^_`|~0-9A-Za-z-]+";
const requestLine = new RegExp(`^(${token}) ([\\x21-\\x7e\\x80-\\xff]+) HTTP/1\\.([01])$`);
const headerLine = new RegExp(`^(${token}):[ \\t]*([^\\x00-\\x08\\x0a-\\x1f\\x7f]*)$`);

/** `bytes` end with the empty line. A text is why it is refused. */
export function parseRequestHead(bytes: Buffer): RequestHead | string {
  const [first, ...lines] = bytes.toString("latin1").slice(0, -4).split("\r\n");
  const request = requestLine.exec(first!);
  if (request === null) return "its request line is malformed";
  if (lines.length > headLimits.maxHeaders) return `it has more than ${headLimits.maxHeaders} headers (maxHeaders)`;
  const headers: [string, string][] = [];
  for (const line of lines) {
    const header = headerLine.exec(line);
    if (header === null) return "one of its headers is malformed";
    headers.push([header[1]!, header[2]!.replace(/[ \t]+$/, "")]);
  }
  const all = (name: string) => headers.filter((each) => each[0].toLowerCase() === name).map(([, value]) => value);
  const hostHeaders = all("host");
  if (hostHeaders.length > 1) return "it has more than one Host";
  const [, method, target, minor] = request as unknown as [string, string, string, string];
  const authority = authorityOf(method, target);
  if (authority === undefined) return "its target is malformed";
  const body = bodyOf(all("content-length"), all("transfer-encoding"), Number(minor));
  if (typeof body === "string") return body;
  const hosts = [...new Set([...hostHeaders, ...(authority === "" ? [] : [authority])])].filter((host) => host !== "");
  return { method, target, minor: Number(minor), headers, hosts, body };
}

export function encodeRequestHead({ method, target, minor, headers }: RequestHead): Buffer {
  return Buffer.from([`${method} ${target} HTTP/1.${minor}`, ...headers.map(([name, value]) => `${name}: ${value}`), "", ""].join("\r\n"), "latin1");
}

/** What the target itself names as the server (RFC 9112, 3.2); empty for none, undefined for what is no target. */
function authorityOf(method: string, target: string): string | undefined {
  if (method === "CONNECT") return target;
  if (target.startsWith("/") || target === "*") return "";
  const absolute = /^https?:\/\/([^/?#@\\]+)(?:[/?#]|$)/i.exec(target);
  return absolute?.[1];
}

/** RFC 9112, 6.3. What a smuggled request would need is refused: two lengths, a length and chunks, another coding. */
function bodyOf(lengths: readonly string[], codings: readonly string[], minor: number): RequestHead["body"] | string {
  if (codings.length > 0) {
    if (codings.length > 1 || codings[0]!.toLowerCase() !== "chunked" || lengths.length > 0 || minor === 0) return "how its body ends is ambiguous";
    return { type: "chunked" };
  }
  if (lengths.length === 0) return { type: "none" };
  if (lengths.length > 1 || !/^[0-9]{1,15}$/.test(lengths[0]!)) return "how its body ends is ambiguous";
  return { type: "length", bytes: Number(lengths[0]) };
}
