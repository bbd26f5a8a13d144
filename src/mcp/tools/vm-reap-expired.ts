import * as z from "zod";
import { reapExpired } from "../../core/index.js";
import { defineTool } from "../tool.js";

export const vmReapExpired = defineTool({
  name: "vm_reap_expired",
  title: "Clear away expired VMs",
  description: "Removes what is left of VMs whose ttl_seconds are over or whose owner is gone, and says which. There is seldom a need: such VMs end by themselves, and what is left of them goes with the next VM that is made.",
  input: z.strictObject({}),
  output: z.looseObject({ reaped: z.array(z.string()).describe("Their vm_ids.") }),
  annotations: { readOnlyHint: false, destructiveHint: true, idempotentHint: true, openWorldHint: false },
  call: async (_args, { signal }) => {
    const { reaped } = await reapExpired({ signal });
    return { structured: { reaped }, text: reaped.length === 0 ? "nothing to clear away" : `cleared away: ${reaped.join(", ")}` };
  },
});
