/** What tools answer, as schemas. Open for more fields: a client may hold an older schema than the server it talks to. */
import * as z from "zod";

const count = () => z.int().min(0);
const publishedPorts = () => z.array(z.looseObject({ protocol: z.enum(["tcp", "udp"]), host_ip: z.string(), host_port: z.int(), guest_port: z.int() })).optional();

export const vmShape = z.looseObject({
  vm_id: z.string(),
  environment: z.string(),
  state: z.enum(["created", "started", "stopped", "failed"]),
  vcpu_count: z.int(),
  mem_mib: z.int(),
  disk_mib: z.int(),
  ttl_seconds: z.int().describe("From its creation on."),
  created_at: z.string().describe("RFC 3339."),
  expires_at: z.string().describe("RFC 3339."),
  network_enabled: z.boolean(),
  execution_mode: z.enum(["pending", "guest", "host_compat"]),
  accelerator: z.enum(["kvm", "tcg"]).optional().describe("What the guest runs under, once started."),
  last_error: z.string().optional().describe("Why it failed."),
  published_ports: publishedPorts().describe("Its ports on the host, while it is started."),
});

export const environmentShape = z.looseObject({
  name: z.string(),
  version: z.string(),
  description: z.string(),
  distribution: z.string(),
  platform: z.string(),
  installed: z.boolean(),
  size_bytes: count().optional(),
  digest: z.string().optional(),
  source: z.string().optional(),
});

export const returnedFileShape = z.looseObject({
  path: z.string(),
  size_bytes: count().optional(),
  text: z.string().optional().describe("The whole file, where it is UTF-8."),
  base64: z.string().optional().describe("The whole file, where it is not."),
  error: z.looseObject({ code: z.string(), message: z.string() }).optional().describe("Why it could not be read."),
});

export const execShape = z.looseObject({
  vm_id: z.string(),
  environment: z.string(),
  execution_mode: z.enum(["guest", "host_compat"]).describe("host_compat: it ran on the host, not isolated."),
  accelerator: z.enum(["kvm", "tcg"]).optional(),
  warning: z.string().optional(),
  exit_code: z.int().min(0).max(255).describe("128+n when signal n ended it; 126 and 127 when it could not be executed."),
  signal: z.string().optional(),
  stdout: z.string().describe("Head and tail where it was longer than 64 KiB."),
  stderr: z.string().describe("Head and tail where it was longer than 64 KiB."),
  stdout_bytes: count().describe("All bytes that came."),
  stderr_bytes: count().describe("All bytes that came."),
  stdout_truncated: z.boolean(),
  stderr_truncated: z.boolean(),
  stdout_resource: z.string().optional().describe("Where more of a truncated output can be read."),
  stderr_resource: z.string().optional().describe("Where more of a truncated output can be read."),
  timed_out: z.boolean(),
  duration_ms: count().describe("The command alone."),
  boot_ms: count().describe("Until the VM was ready."),
  refusals: z.array(z.looseObject({ rule: z.string(), reason: z.string(), protocol: z.string(), name: z.string().optional(), address: z.string().optional(), port: z.int().optional() })).optional().describe("What the network refused the guest meanwhile."),
  published_ports: publishedPorts().describe("The VM's ports on the host."),
  returned_files: z.array(returnedFileShape).optional(),
});
