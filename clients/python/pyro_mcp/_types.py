"""The shapes of results: plain dictionaries with the contract's keys. A key that does not apply is absent."""

from __future__ import annotations

from typing import Dict, List, TypedDict


class Vm(TypedDict, total=False):
    """``accelerator`` is there once it was started, ``last_error`` once it failed; all else always."""

    vm_id: str
    environment: str
    #: ``created``, ``started``, ``stopped`` or ``failed``
    state: str
    vcpu_count: int
    mem_mib: int
    disk_mib: int
    ttl_seconds: int
    #: RFC 3339
    created_at: str
    expires_at: str
    network_enabled: bool
    #: ``pending``, ``guest`` or ``host_compat``
    execution_mode: str
    #: ``kvm`` or ``tcg``
    accelerator: str
    last_error: str
    #: while it is started, if there are any
    published_ports: List[PublishedPort]


class Refusal(TypedDict, total=False):
    """``rule``, ``reason`` and ``protocol`` are always there."""

    rule: str
    reason: str
    protocol: str
    name: str
    address: str
    port: int


class ExecResult(TypedDict, total=False):
    """``signal`` is there if one ended the command, ``refusals`` if the network refused something, ``published_ports`` if
    there are any; all else always."""

    vm_id: str
    environment: str
    #: ``guest`` or ``host_compat``
    execution_mode: str
    #: ``kvm`` or ``tcg``
    accelerator: str
    #: 0 to 255; 128+n when signal n ended the command; 126 and 127 as shells have them when it could not be executed
    exit_code: int
    signal: str
    #: UTF-8, invalid bytes replaced; head and tail where it was longer than ``capture_bytes``
    stdout: str
    stderr: str
    #: true totals
    stdout_bytes: int
    stderr_bytes: int
    stdout_truncated: bool
    stderr_truncated: bool
    timed_out: bool
    #: the command alone, milliseconds
    duration_ms: int
    #: until the VM was ready, milliseconds
    boot_ms: int
    refusals: List[Refusal]
    published_ports: List[PublishedPort]


class Environment(TypedDict, total=False):
    """``size_bytes``, ``digest`` and ``source`` are there if it is installed; all else always."""

    name: str
    version: str
    description: str
    distribution: str
    platform: str
    installed: bool
    size_bytes: int
    digest: str
    source: str


class Kernel(TypedDict):
    version: str
    digest: str
    source: str


class BootFile(TypedDict):
    name: str
    size_bytes: int
    digest: str


class Package(TypedDict):
    name: str
    version: str


class EnvironmentDetails(Environment, total=False):
    """What is known of an installed environment besides; ``damage`` says why one does not count as installed."""

    created_at: str
    kernel: Kernel
    files: List[BootFile]
    packages: List[Package]
    directory: str
    damage: str


class Pruned(TypedDict):
    removed: List[str]
    reclaimed_bytes: int


class Deleted(TypedDict):
    vm_id: str
    deleted: bool


class Reaped(TypedDict):
    reaped: List[str]


class PublishedPort(TypedDict):
    #: ``tcp`` or ``udp``
    protocol: str
    host_ip: str
    host_port: int
    guest_port: int


class AuditRecord(TypedDict, total=False):
    """``time``, ``type`` and ``protocol`` are always there."""

    #: RFC 3339
    time: str
    #: ``dns``, ``connect``, ``close``, ``refused``, ``secret`` or ``publish``
    type: str
    protocol: str
    name: str
    address: str
    port: int
    query: str
    #: which rule decided
    rule: str
    reason: str
    bytes_sent: int
    bytes_received: int
    secret: str


class NetworkCounters(TypedDict):
    connections_open: int
    connections_total: int
    refused_total: int
    dns_queries: int
    bytes_sent: int
    bytes_received: int


class NetworkInfo(TypedDict, total=False):
    """What a VM may reach. The first three are always there, all others for one that has a network."""

    vm_id: str
    network_enabled: bool
    #: ``none``, ``public`` or ``allow_list``
    policy: str
    guest_ip: str
    gateway_ip: str
    dns: str
    interface: str
    allowed_hosts: List[str]
    denied_hosts: List[str]
    allowed_nets: List[str]
    published_ports: List[PublishedPort]
    secrets: List[Dict[str, str]]
    #: of one that runs, as what follows
    gateway_running: bool
    counters: NetworkCounters
    last_refusals: List[AuditRecord]
