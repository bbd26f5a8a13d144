import { completable, type McpServer } from "@modelcontextprotocol/server";
import * as z from "zod";
import { listEnvironments } from "../core/index.js";
import { icons } from "./icon.js";

/** What a person can pick in a client: a task to be done in a VM. */
export function registerPrompt(server: McpServer): void {
  server.registerPrompt(
    "do_in_vm",
    {
      title: "Do it in a VM",
      description: "Have a task done in a virtual machine instead of on this computer.",
      icons,
      argsSchema: z.object({
        task: z.string().max(20_000).describe("What is to be done."),
        environment: completable(z.string().max(1000).optional().describe("What the VM is made of; default debian:12."), async (begin = "") => (await listEnvironments()).map(({ name }) => name).filter((name) => name.startsWith(begin))),
      }),
    },
    ({ task, environment = "debian:12" }) => ({
      messages: [
        {
          role: "user",
          content: {
            type: "text",
            text: `Do the following in virtual machines of pyro alone, and run nothing of it on this computer.\n\nUse vm_run with the environment ${environment} if one command will do. Otherwise open one VM with vm_open, work in it with vm_call, and end it with vm_delete. Bring the files that are needed with \`files\`, and show me what came of it, with the exit status of what you ran.\n\n${task}`,
          },
        },
      ],
    }),
  );
}
