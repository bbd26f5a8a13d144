import type { PolicyHook } from "../../src/net/policy-hook.js";

const yes = { allowed: true, rule: "test" };

/** A policy for tests that are about something else. */
export const allowAll: PolicyHook = {
  checksHellos: false,
  name: () => yes,
  address: () => yes,
  connect: () => yes,
  helloName: () => yes,
};
