"""The facade: one method for each of pyro's verbs."""

from __future__ import annotations

import os
import weakref
from types import TracebackType
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Type, Union, cast

from ._connections import Connections
from ._server import Server
from ._types import AuditRecord, Deleted, Environment, EnvironmentDetails, ExecResult, NetworkInfo, Pruned, Reaped, Vm

#: A string is run by the guest's login shell; a sequence of strings is executed as it is.
Command = Union[str, Sequence[str]]
#: Called in the calling thread with what happens meanwhile: ``{"phase": "start", "accelerator": "tcg"}``, or
#: ``{"phase": "pull", "progress": {...}}``. What it raises ends the call.
Progress = Optional[Callable[[Dict[str, Any]], None]]

# The contract's defaults. What equals them is not sent: pyro's core has the same, and knows which of them depend on others.
_DEFAULTS: Dict[str, object] = {
    "vcpu_count": 1,
    "mem_mib": 1024,
    "timeout_seconds": 30,
    "ttl_seconds": 600,
    "network": False,
    "allow_host_compat": False,
    "force": False,
    "disk_mib": None,
    "capture_bytes": None,
    "env": None,
    "cwd": None,
    "user": None,
    "allow_hosts": None,
    "deny_hosts": None,
    "allow_nets": None,
    "publish": None,
    "secrets": None,
    "audit_file": None,
    "last": None,
}


class Pyro:
    """Commands in virtual machines of their own.

    Nothing happens before the first call; that one starts a ``pyro pipe`` process, which all calls of this object use, from
    as many threads as like to. It ends with ``close``, at the end of a ``with`` block, when this object is collected, and
    with Python, however that ends; VMs of ``run_in_vm`` end with it.

    ``executable`` is the ``pyro`` command; else it is ``PYRO_EXECUTABLE``, else ``pyro`` in PATH.

    Methods raise ``PyroError``. A command that exits with another status than 0 is a result and no error.
    """

    def __init__(self, *, executable: Union[str, "os.PathLike[str]", None] = None) -> None:
        self._executable = None if executable is None else os.fspath(executable)
        self._connections = Connections(self._executable)
        # Not at exit: there every connection is closed, and waited for.
        weakref.finalize(self, self._connections.hang_up).atexit = False

    def create_server(self) -> Server:
        """An MCP server with the tools of pyro; its ``run()`` serves on standard input and output."""
        return Server(self._executable)

    def list_environments(self) -> List[Environment]:
        """The catalog's environments and whatever else is installed."""
        return cast("List[Environment]", self._call("list_environments"))

    def pull_environment(self, environment: str, *, force: bool = False, progress: Progress = None) -> Environment:
        """Makes an environment ready for use; verifies and mends one that is there, makes it anew with ``force``.

        Raises NOT_FOUND, REGISTRY, DISK_FULL, HOST_MISSING.
        """
        return cast("Environment", self._call("pull_environment", progress, environment=environment, force=force))

    def inspect_environment(self, environment: str) -> EnvironmentDetails:
        """What an environment is made of: kernel, files, digests, packages. Raises NOT_FOUND."""
        return cast("EnvironmentDetails", self._call("inspect_environment", environment=environment))

    def prune_environments(self) -> Pruned:
        """Removes what is no longer used; never what a VM uses."""
        return cast("Pruned", self._call("prune_environments"))

    def create_vm(
        self,
        environment: str,
        *,
        vcpu_count: int = 1,
        mem_mib: int = 1024,
        ttl_seconds: int = 600,
        network: bool = False,
        allow_host_compat: bool = False,
        disk_mib: Optional[int] = None,
        allow_hosts: Optional[Sequence[str]] = None,
        deny_hosts: Optional[Sequence[str]] = None,
        allow_nets: Optional[Sequence[str]] = None,
        publish: Optional[Sequence[str]] = None,
        secrets: Optional[Sequence[str]] = None,
    ) -> Vm:
        """The record of a VM that outlives this process; nothing runs yet.

        ``network`` is the public internet; ``allow_hosts`` (``example.org``, ``*.example.org:443``) is these hosts and nothing else,
        ``deny_hosts`` are left out of either, ``allow_nets`` (``10.1.0.0/16``) are private networks that are allowed as well.
        ``publish`` (``8080:80``) are the guest's ports on this host. ``secrets`` (``TOKEN@api.example.org``) are variables of this
        process's environment, or files, of which the guest has placeholders only.

        Raises INVALID_ARGUMENT, NOT_FOUND for an environment that nobody knows.
        """
        return cast(
            "Vm",
            self._call(
                "create_vm",
                environment=environment,
                vcpu_count=vcpu_count,
                mem_mib=mem_mib,
                ttl_seconds=ttl_seconds,
                network=network,
                allow_host_compat=allow_host_compat,
                disk_mib=disk_mib,
                allow_hosts=_listed(allow_hosts),
                deny_hosts=_listed(deny_hosts),
                allow_nets=_listed(allow_nets),
                publish=_listed(publish),
                secrets=_listed(secrets),
            ),
        )

    def start_vm(self, vm_id: str, *, progress: Progress = None) -> Vm:
        """Starts a created VM; boots a stopped one, with the disk it had.

        Raises NOT_FOUND, INVALID_STATE, BOOT_FAILED, HOST_MISSING, DISK_FULL.
        """
        return cast("Vm", self._call("start_vm", progress, vm_id=vm_id))

    def exec_vm(
        self,
        vm_id: str,
        *,
        command: Command,
        timeout_seconds: int = 30,
        capture_bytes: Optional[int] = None,
        env: Optional[Mapping[str, str]] = None,
        cwd: Optional[str] = None,
        user: Optional[str] = None,
    ) -> ExecResult:
        """Runs ONE command in a started VM, and the VM is gone, whatever becomes of the command and of this process.

        ``capture_bytes`` is what is kept of each output stream, head and tail: 1 KiB to 64 MiB, 1 MiB when left out. ``user``
        is ``name``, ``uid``, ``name:group`` or ``uid:gid``, root when left out; ``cwd`` its home.

        Raises NOT_FOUND, INVALID_ARGUMENT, INVALID_STATE, GUEST_LOST, VMM_EXITED, TIMEOUT (the VM's time to live). A time-out
        of the command is a result.
        """
        return cast(
            "ExecResult",
            self._call(
                "exec_vm",
                vm_id=vm_id,
                command=command,
                timeout_seconds=timeout_seconds,
                capture_bytes=capture_bytes,
                env=env,
                cwd=cwd,
                user=user,
            ),
        )

    def stop_vm(self, vm_id: str) -> Vm:
        """Ends a VM and keeps its record, disk and log. Raises NOT_FOUND, INVALID_STATE."""
        return cast("Vm", self._call("stop_vm", vm_id=vm_id))

    def delete_vm(self, vm_id: str) -> Deleted:
        """Ends a VM and removes all that is left of it. Raises NOT_FOUND."""
        return cast("Deleted", self._call("delete_vm", vm_id=vm_id))

    def status_vm(self, vm_id: str) -> Vm:
        """What is true of a VM now. Raises NOT_FOUND."""
        return cast("Vm", self._call("status_vm", vm_id=vm_id))

    def list_vms(self) -> List[Vm]:
        """All VMs with a record, oldest first. Those of ``run_in_vm`` have none."""
        return cast("List[Vm]", self._call("list_vms"))

    def logs_vm(self, vm_id: str) -> str:
        """The end of a VM's console, at most 64 KiB, harmless for a terminal. Raises NOT_FOUND."""
        return cast(str, self._call("logs_vm", vm_id=vm_id))

    def network_info_vm(self, vm_id: str) -> NetworkInfo:
        """What a VM may reach, its ports on this host, and what it did with its network until now. Raises NOT_FOUND."""
        return cast("NetworkInfo", self._call("network_info_vm", vm_id=vm_id))

    def set_network_vm(
        self,
        vm_id: str,
        *,
        network: Optional[bool] = None,
        allow_hosts: Optional[Sequence[str]] = None,
        deny_hosts: Optional[Sequence[str]] = None,
        allow_nets: Optional[Sequence[str]] = None,
    ) -> NetworkInfo:
        """Another policy for a VM with a network, in place of the one that it has, also while it runs.

        Connections that are not allowed any more are reset. ``network=False`` allows nothing.

        Raises NOT_FOUND, INVALID_ARGUMENT, INVALID_STATE for a VM without a network.
        """
        given = {"network": network, "allow_hosts": _listed(allow_hosts), "deny_hosts": _listed(deny_hosts), "allow_nets": _listed(allow_nets)}
        params = {name: value for name, value in given.items() if value is not None}
        return cast("NetworkInfo", self._connections.call("set_network_vm", {"vm_id": vm_id, **params}, None))

    def audit_vm(self, vm_id: str, *, last: Optional[int] = None) -> List[AuditRecord]:
        """What a VM asked of its network and what became of it, oldest first. Raises NOT_FOUND, INVALID_STATE."""
        return cast("List[AuditRecord]", self._call("audit_vm", vm_id=vm_id, last=last))

    def reap_expired(self) -> Reaped:
        """Ends VMs whose time is over and clears away what a crash left."""
        return cast("Reaped", self._call("reap_expired"))

    def run_in_vm(
        self,
        environment: str,
        *,
        command: Command,
        vcpu_count: int = 1,
        mem_mib: int = 1024,
        timeout_seconds: int = 30,
        ttl_seconds: int = 600,
        network: bool = False,
        allow_host_compat: bool = False,
        disk_mib: Optional[int] = None,
        capture_bytes: Optional[int] = None,
        env: Optional[Mapping[str, str]] = None,
        cwd: Optional[str] = None,
        user: Optional[str] = None,
        allow_hosts: Optional[Sequence[str]] = None,
        deny_hosts: Optional[Sequence[str]] = None,
        allow_nets: Optional[Sequence[str]] = None,
        publish: Optional[Sequence[str]] = None,
        secrets: Optional[Sequence[str]] = None,
        audit_file: Optional[str] = None,
        progress: Progress = None,
    ) -> ExecResult:
        """Starts a VM, runs one command in it and ends it, whatever happens. Pulls the environment if it is not installed.

        ``capture_bytes``, ``user`` and ``cwd`` are as in ``exec_vm``, what is said of the network as in ``create_vm``; ``audit_file``
        gets a line of JSON for each name, connection and refusal, and the result's ``refusals`` are what the network refused; 600 ``ttl_seconds`` become more where ``timeout_seconds``
        needs it.

        Raises INVALID_ARGUMENT, NOT_FOUND, BOOT_FAILED, HOST_MISSING, GUEST_LOST. A time-out of the command is a result.
        """
        return cast(
            "ExecResult",
            self._call(
                "run_in_vm",
                progress,
                environment=environment,
                command=command,
                vcpu_count=vcpu_count,
                mem_mib=mem_mib,
                timeout_seconds=timeout_seconds,
                ttl_seconds=ttl_seconds,
                network=network,
                allow_host_compat=allow_host_compat,
                disk_mib=disk_mib,
                capture_bytes=capture_bytes,
                env=env,
                cwd=cwd,
                user=user,
                allow_hosts=_listed(allow_hosts),
                deny_hosts=_listed(deny_hosts),
                allow_nets=_listed(allow_nets),
                publish=_listed(publish),
                secrets=_listed(secrets),
                audit_file=audit_file,
            ),
        )

    def close(self) -> None:
        """Ends the ``pyro pipe`` process with the calls that are under way. Safe to call again; a later call is an error."""
        self._connections.close()

    def __enter__(self) -> "Pyro":
        return self

    def __exit__(self, _type: Optional[Type[BaseException]], _value: Optional[BaseException], _trace: Optional[TracebackType]) -> None:
        self.close()

    def _call(self, method: str, progress: Progress = None, **arguments: object) -> object:
        params = {name: value for name, value in arguments.items() if name not in _DEFAULTS or not _is(value, _DEFAULTS[name])}
        return self._connections.call(method, params, progress)


def _listed(value: Optional[Sequence[str]]) -> Union[None, str, List[str]]:
    """Any sequence is an array in JSON; a string alone is a mistake that pyro is to name."""
    return value if value is None or isinstance(value, str) else list(value)


def _is(value: object, default: object) -> bool:
    """``True == 1`` and ``1.0 == 1`` in Python; what was given is pyro's to judge."""
    return type(value) is type(default) and value == default
