/** Telling a client that waits what is going on. */
import type { ServerContext } from "@modelcontextprotocol/server";
import type { Phase } from "../core/index.js";

/** Clients and people lose patience after about two seconds of silence. */
const repeatMs = 1500;

export interface Progress {
  /** Something new begins; told at once, and again with the time it takes while it lasts. */
  say(message: string): void;
  phase(phase: Phase): void;
  end(): void;
}

/** Does nothing for a client that did not ask. What is sent as the progress is the time since the call began, in seconds: nobody knows the total. */
export function startProgress(ctx: ServerContext): Progress {
  const progressToken = ctx.mcpReq._meta?.progressToken;
  if (progressToken === undefined) return { say: () => {}, phase: () => {}, end: () => {} };
  const begin = performance.now();
  let current = { message: "getting ready", since: begin };
  let last = 0;
  let over = false;
  const tell = () => {
    if (over || ctx.mcpReq.signal.aborted) return;
    const now = performance.now();
    const progress = Math.max(last + 0.001, Math.round(now - begin) / 1000); // each has to be more than the one before
    last = progress;
    const seconds = Math.floor((now - current.since) / 1000);
    const message = seconds === 0 ? current.message : `${current.message} (${seconds} s)`;
    ctx.mcpReq.notify({ method: "notifications/progress", params: { progressToken, progress, message } }).catch(() => {}); // the client is gone; whoever waits for the result finds out
  };
  const timer = setInterval(tell, repeatMs);
  timer.unref();
  const say = (message: string) => {
    if (message === current.message) return;
    current = { message, since: performance.now() };
    tell();
  };
  return {
    say,
    phase: (phase) => say(words(phase)),
    end: () => {
      over = true;
      clearInterval(timer);
    },
  };
}

function words(phase: Phase): string {
  switch (phase.phase) {
    case "pull": {
      const { environment, message, doneBytes, totalBytes } = phase.progress;
      const part = doneBytes !== undefined && totalBytes ? `, ${Math.floor((100 * doneBytes) / totalBytes)} %` : doneBytes !== undefined ? `, ${Math.floor(doneBytes / 1e6)} MB` : "";
      return `pulling ${environment}: ${message}${part}`;
    }
    case "probe":
      return "trying whether a guest runs under KVM; done once";
    case "template":
      return "booting and freezing a VM, for this and later ones to be forked from";
    case "waiting":
      return "another process makes what is needed";
    case "start":
      return "starting the VM";
    case "exec":
      return "running the command";
  }
}
