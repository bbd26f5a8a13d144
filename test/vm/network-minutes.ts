// Connections that stay open for minutes: a VM that is started before all tests and looked at by the last of them, so that nobody waits for it. It has a home
// of its own, as tests take whatever runs in theirs for left behind.
import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { copyCache } from "./cache.js";
import { makeWorld } from "./network-world.js";
import { eventually, leftovers, type PyroResult } from "./pyro.js";

/** Names the directory that `outcome` is in. */
const variable = "PYRO_TEST_MINUTES";

export interface Outcome {
  /** Why nothing could be tried here. */
  why?: string;
  result?: PyroResult;
  /** What the gateway wrote down. */
  records?: { time: string; type: string; address?: string; port?: number; bytes_received?: number; reason?: string }[];
}

/** After three minutes each connection is used once more, or for the first time. The one over TLS is curl's, which is sent a byte now and then. */
const script = `
curl -sS -k https://www.example.com/drip?times=7\\&ms=31000 & curl=$!
perl -MIO::Socket::INET -e '
  sub connected { IO::Socket::INET->new("www.example.com:$_[0]") or die "port $_[0]: $!" }
  sub get { my $s = shift; syswrite $s, "GET /hello HTTP/1.1\\r\\nHost: www.example.com\\r\\n\\r\\n"; my $t = ""; while ($t !~ /0\\r\\n\\r\\n$|hello.*\\n/) { sysread $s, $t, 1000, length $t or die "end of it" } $t =~ /(hello.*)/ ? $1 : "?" }
  my ($idle, $seldom, $kept) = (connected(7), connected(7), connected(80));
  my @got = (get($kept));
  my $bytes = 0;
  for (1 .. 6) { sleep 31; syswrite $seldom, "x"; sysread $seldom, my $b, 9; $bytes++ if $b eq "x" }
  syswrite $idle, "first"; sysread $idle, my $b, 99;
  print "idle: $b\\nseldom: $bytes\\nkept: ", get($kept), "\\n";
'
wait $curl`;

/** Begins, without waiting. The function returned ends all of it. */
export function openForMinutes(): () => Promise<void> {
  const home = mkdtempSync(join(tmpdir(), "pyro-minutes-"));
  process.env[variable] = home;
  const stop = new AbortController();
  const work = keepOpen(home, stop.signal)
    .catch((error: unknown): Outcome => ({ why: `it failed: ${String(error)}` }))
    .then((outcome) => {
      writeFileSync(join(home, "outcome.new"), JSON.stringify(outcome));
      renameSync(join(home, "outcome.new"), join(home, "outcome"));
    });
  return async () => {
    stop.abort();
    await work;
    await eventually(() => leftovers(home).length === 0);
    const left = leftovers(home);
    rmSync(home, { recursive: true, force: true });
    if (left.length > 0) throw new Error(`open for minutes, and left behind:\n${left.join("\n")}`);
  };
}

async function keepOpen(home: string, signal: AbortSignal): Promise<Outcome> {
  copyCache(join(home, ".cache"), "debian:12");
  const world = await makeWorld();
  if (typeof world === "string") return { why: world };
  try {
    if (signal.aborted) return { why: "all tests were over before it began" };
    const audit = join(home, "audit.jsonl");
    const args = ["run", "--quiet", "--allow-host", "www.example.com", "--audit-file", audit, "--timeout-seconds", "900", "debian:12", "--", "sh", "-ec", script];
    const result = await world.pyro(args, { env: { HOME: home }, timeoutMs: 1_000_000, onStart: (child) => signal.addEventListener("abort", () => child.kill("SIGTERM")) });
    return { result, records: readFileSync(audit, "utf8").trim().split("\n").map((line) => JSON.parse(line) as NonNullable<Outcome["records"]>[number]) };
  } finally {
    world.end();
  }
}

/** Waits for it. Undefined if it was not begun. */
export async function outcomeOfMinutes(): Promise<Outcome | undefined> {
  const home = process.env[variable];
  if (home === undefined) return undefined;
  const path = join(home, "outcome");
  if (!(await eventually(() => existsSync(path), 600_000))) throw new Error(`nothing was heard of it:\n${execFileSync("ps", ["-ef"], { encoding: "utf8" })}`);
  return JSON.parse(readFileSync(path, "utf8")) as Outcome;
}
