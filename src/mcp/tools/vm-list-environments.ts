import * as z from "zod";
import { toJson } from "../../base/json.js";
import { listEnvironments } from "../../core/index.js";
import { environmentShape } from "../shapes.js";
import { defineTool } from "../tool.js";

export const vmListEnvironments = defineTool({
  name: "vm_list_environments",
  title: "List environments",
  description: "Lists what VMs can be made of, and which of it is installed already. Use it to choose an `environment`; there is no need to when debian:12 will do. One that is not installed is pulled by the first call that names it.",
  input: z.strictObject({}),
  output: z.looseObject({ environments: z.array(environmentShape) }),
  annotations: { readOnlyHint: true, destructiveHint: false, idempotentHint: true, openWorldHint: false },
  call: async (_args, { signal }) => {
    const environments = await listEnvironments({ signal });
    return { structured: { environments: toJson(environments) }, text: environments.map((each) => `${each.name}: ${each.description}${each.installed ? "" : " (not installed)"}`).join("\n") };
  },
});
