/** Clients of the revisions up to 2025-11-25 over HTTP: each has a session, so that it can cancel a request with another one. */
import { randomUUID } from "node:crypto";
import { ReadableStream } from "node:stream/web";
import { WebStandardStreamableHTTPServerTransport, type McpServer } from "@modelcontextprotocol/server";

/** A session without a request for this long is over. */
const idleMs = 30 * 60_000;
const sweepMs = 60_000;

interface Session {
  server: McpServer;
  transport: WebStandardStreamableHTTPServerTransport;
  lastUsedMs: number;
  /** Requests without the end of their answer. */
  active: number;
}

export class Sessions {
  readonly #create: () => McpServer;
  readonly #most: number;
  readonly #sessions = new Map<string, Session>();
  /** Being opened: counted, as many may be asked for at once. */
  #opening = 0;
  readonly #sweeper = setInterval(() => this.#sweep(), sweepMs);

  constructor(create: () => McpServer, most: number) {
    this.#create = create;
    this.#most = most;
    this.#sweeper.unref();
  }

  async handle(request: Request): Promise<Response> {
    const id = request.headers.get("mcp-session-id");
    if (id === null) return request.method === "POST" ? this.#open(request) : refuse(400, "A session is needed: send the Mcp-Session-Id header that the answer to initialize had.");
    const session = this.#sessions.get(id);
    if (session === undefined) return refuse(404, "There is no such session; it may have been idle for too long. Initialize another one.");
    return use(session, request);
  }

  async close(): Promise<void> {
    clearInterval(this.#sweeper);
    await Promise.all([...this.#sessions.keys()].map((id) => this.#end(id)));
  }

  async #open(request: Request): Promise<Response> {
    if (this.#sessions.size + this.#opening >= this.#most && !this.#endIdlest()) return refuse(503, `All ${this.#most} sessions are in use.`);
    this.#opening++;
    try {
      const server = this.#create();
      const transport = new WebStandardStreamableHTTPServerTransport({
        sessionIdGenerator: randomUUID,
        onsessioninitialized: (id) => void this.#sessions.set(id, session),
        onsessionclosed: (id) => this.#end(id),
      });
      const session: Session = { server, transport, lastUsedMs: performance.now(), active: 0 };
      await server.connect(transport);
      const response = await use(session, request);
      if (transport.sessionId === undefined) await server.close(); // it was no initialize, and has been answered
      return response;
    } finally {
      this.#opening--;
    }
  }

  /** Makes room where a client has gone without a word. */
  #endIdlest(): boolean {
    const [idlest] = [...this.#sessions].filter(([, { active }]) => active === 0).sort(([, a], [, b]) => a.lastUsedMs - b.lastUsedMs);
    if (idlest === undefined) return false;
    void this.#end(idlest[0]);
    return true;
  }

  #sweep(): void {
    for (const [id, { active, lastUsedMs }] of this.#sessions) if (active === 0 && performance.now() - lastUsedMs > idleMs) void this.#end(id);
  }

  async #end(id: string): Promise<void> {
    const session = this.#sessions.get(id);
    this.#sessions.delete(id);
    await session?.server.close();
  }
}

async function use(session: Session, request: Request): Promise<Response> {
  session.lastUsedMs = performance.now();
  // A stream that only waits for what the server may have to say keeps nobody's session.
  const counts = request.method !== "GET";
  const over = () => {
    if (!counts) return;
    session.active--;
    session.lastUsedMs = performance.now();
  };
  if (counts) session.active++;
  try {
    const response = await session.transport.handleRequest(request);
    if (response.body === null) {
      over();
      return response;
    }
    return new Response(whenOver(response.body, over), response);
  } catch (error) {
    over();
    throw error;
  }
}

/** The same stream; `over` is called when it has ended, broken or was let go of. */
function whenOver(body: ReadableStream<Uint8Array>, over: () => void): ReadableStream<Uint8Array> {
  const reader = body.getReader();
  return new ReadableStream({
    pull: async (controller) => {
      const { done, value } = await reader.read().catch((error: unknown) => {
        over();
        throw error;
      });
      if (!done) return controller.enqueue(value);
      over();
      controller.close();
    },
    cancel: async (reason) => {
      over();
      await reader.cancel(reason);
    },
  });
}

/** As JSON-RPC has errors that belong to no request. */
export function refuse(status: number, message: string, headers: Record<string, string> = {}): Response {
  return Response.json({ jsonrpc: "2.0", error: { code: -32_000, message }, id: null }, { status, headers });
}
