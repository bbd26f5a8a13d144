// The official conformance suite, every scenario that a revision requires, against the server that is shipped, and against the same factory and transport with
// the suite's own fixtures added. What is expected to fail is in a file beside this one, each with its reason; what fails besides, and what passes unexpectedly, fails here.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { serveEach } from "../../src/mcp/http.js";
import { createFixtureServer } from "./conformance-fixtures.js";
import { officialTools, runTool } from "./newer-node.js";
import { serveHttp, withToken } from "./served.js";

const home = mkdtempSync(join(tmpdir(), "pyro-conformance-"));
beforeAll(() => void officialTools());
afterAll(() => rmSync(home, { recursive: true, force: true }));

async function conform(url: string, revision: string, expected: string) {
  const path = new URL(expected, import.meta.url).pathname;
  return runTool("conformance", ["server", "--url", url, "--requirements", revision, "--expected-failures", path], { cwd: home });
}

for (const revision of ["2025-11-25", "2026-07-28"]) {
  test(`${revision}: the server that is shipped`, async () => {
    const server = await serveHttp([], { HOME: home });
    const open = await withToken(server);
    const { status, stdout, stderr } = await conform(open.url, revision, `conformance-shipped-${revision}.yml`);
    open.close();
    await server.end();
    expect({ status, said: status === 0 ? "" : stdout.slice(-4000) + stderr.slice(-4000) }).toEqual({ status: 0, said: "" });
  });

  test(`${revision}: the same factory and transport with the suite's fixtures`, async () => {
    const over = new AbortController();
    const state = process.env["XDG_STATE_HOME"];
    process.env["XDG_STATE_HOME"] = home;
    let served = Promise.resolve();
    const where = await new Promise<{ url: string; token?: string }>((resolve, reject) => {
      served = serveEach(createFixtureServer, { host: "127.0.0.1", port: 0, signal: over.signal, onListening: resolve });
      served.catch(reject);
    });
    if (state === undefined) delete process.env["XDG_STATE_HOME"];
    else process.env["XDG_STATE_HOME"] = state;
    const open = await withToken({ url: where.url, token: where.token! });
    const { status, stdout, stderr } = await conform(open.url, revision, `conformance-fixtures-${revision}.yml`);
    open.close();
    over.abort();
    await served;
    expect({ status, said: status === 0 ? "" : stdout.slice(-6000) + stderr.slice(-4000) }).toEqual({ status: 0, said: "" });
  });
}
