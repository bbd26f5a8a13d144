/** What the gateway and those who run it say to each other; in the spelling of the wire, which is that of `--json`. */
import type { AuditRecord } from "../audit.js";

export interface PublishRequest {
  protocol: "tcp" | "udp";
  /** An IPv4 address of the host. */
  host_ip: string;
  /** 0 for one that is free. */
  host_port: number;
  guest_port: number;
}

export interface GatewaySecret {
  name: string;
  /** The one host that it is for. */
  host: string;
  value: string;
  /** What the guest has in its place. */
  placeholder: string;
}

export interface GatewayConfiguration {
  vm_id: string;
  /** Whatever the gateway's policy understands. */
  policy: unknown;
  publish?: PublishRequest[];
  /** Absolute. */
  audit_file?: string;
  secrets?: GatewaySecret[];
  /** `address` or `address:port`; else those of the host's resolv.conf. */
  resolvers?: string[];
  proxy?: { http?: string; https?: string; no_proxy?: string };
  /** Certificates (PEM) to trust besides the system's. */
  ca_file?: string;
}

export interface GatewayConfigured {
  published: PublishRequest[];
  /** The VM's own authority (PEM), to be trusted by the guest; only if there are secrets. */
  ca_certificate?: string;
}

export interface GatewayInfo {
  policy: unknown;
  published_ports: PublishRequest[];
  counters: {
    connections_open: number;
    connections_total: number;
    refused_total: number;
    dns_queries: number;
    bytes_sent: number;
    bytes_received: number;
  };
  last_refusals: AuditRecord[];
}

export type GatewayEvent = AuditRecord & { event: AuditRecord["type"] };
