/** Diagnostics for people who look for a fault. Silent unless a face sets a sink (`PYRO_LOG=debug` in the command line). */
type Sink = (line: string) => void;

let sink: Sink | undefined;

export function setLogSink(next: Sink | undefined): void {
  sink = next;
}

/** One line: what happened, then facts. Never a secret, never bytes from a guest that were not made harmless. */
export function log(event: string, facts: Record<string, string | number | boolean | undefined> = {}): void {
  if (sink === undefined) return;
  const pairs = Object.entries(facts).filter(([, value]) => value !== undefined).map(([name, value]) => `${name}=${String(value)}`);
  sink([event, ...pairs].join(" "));
}
