"""The public contract of the Python client, as literals: a name or a default that changes here is a breaking change."""

import inspect
import json
import os
import re
import subprocess
import sys
import unittest

import pyro_mcp
from pyro_mcp import Pyro

PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
REQUIRED = inspect.Parameter.empty

# What the contract names first, then what was added; REQUIRED has no default.
METHODS = {
    "create_server": {},
    "list_environments": {},
    "pull_environment": {"environment": REQUIRED, "force": False, "progress": None},
    "inspect_environment": {"environment": REQUIRED},
    "prune_environments": {},
    "create_vm": {"environment": REQUIRED, "vcpu_count": 1, "mem_mib": 1024, "ttl_seconds": 600, "network": False, "allow_host_compat": False, "disk_mib": None, "allow_hosts": None, "deny_hosts": None, "allow_nets": None, "publish": None, "secrets": None},
    "start_vm": {"vm_id": REQUIRED, "progress": None},
    "exec_vm": {"vm_id": REQUIRED, "command": REQUIRED, "timeout_seconds": 30, "capture_bytes": None, "env": None, "cwd": None, "user": None},
    "stop_vm": {"vm_id": REQUIRED},
    "delete_vm": {"vm_id": REQUIRED},
    "status_vm": {"vm_id": REQUIRED},
    "list_vms": {},
    "logs_vm": {"vm_id": REQUIRED},
    "network_info_vm": {"vm_id": REQUIRED},
    "set_network_vm": {"vm_id": REQUIRED, "network": None, "allow_hosts": None, "deny_hosts": None, "allow_nets": None},
    "audit_vm": {"vm_id": REQUIRED, "last": None},
    "reap_expired": {},
    "run_in_vm": {
        "environment": REQUIRED,
        "command": REQUIRED,
        "vcpu_count": 1,
        "mem_mib": 1024,
        "timeout_seconds": 30,
        "ttl_seconds": 600,
        "network": False,
        "allow_host_compat": False,
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
        "progress": None,
    },
    "close": {},
}


class Contract(unittest.TestCase):
    def test_names(self):
        self.assertEqual(sorted(pyro_mcp.__all__), ["Pyro", "PyroError", "Server", "create_server"])
        self.assertEqual(sorted(name for name in vars(Pyro) if not name.startswith("_")), sorted(METHODS))

    def test_parameters_and_defaults(self):
        for name, expected in METHODS.items():
            parameters = list(inspect.signature(getattr(Pyro, name)).parameters.values())[1:]
            with self.subTest(name):
                self.assertEqual([(each.name, each.default) for each in parameters], list(expected.items()))
                self.assertEqual([(each.default, type(each.default)) for each in parameters], [(each, type(each)) for each in expected.values()])  # False is no 0
                self.assertEqual([each.name for each in parameters if each.kind is each.POSITIONAL_OR_KEYWORD], [each for each in list(expected)[:1] if each in ("environment", "vm_id")])
                self.assertTrue(getattr(Pyro, name).__doc__)

    def test_factories_need_nothing(self):
        self.assertEqual(list(inspect.signature(pyro_mcp.create_server).parameters), ["executable"])
        self.assertEqual(list(inspect.signature(Pyro).parameters), ["executable"])
        self.assertEqual(list(inspect.signature(pyro_mcp.create_server().run).parameters), ["transport"])

    def test_an_error(self):
        error = pyro_mcp.PyroError("NOT_FOUND", "There is none.", "Look elsewhere.")
        self.assertEqual((error.code, error.message, error.hint, str(error)), ("NOT_FOUND", "There is none.", "Look elsewhere.", "NOT_FOUND: There is none. Look elsewhere."))
        self.assertIsNone(pyro_mcp.PyroError("INTERNAL", "x").hint)

    def test_one_version(self):
        with open(os.path.join(PACKAGE, "..", "..", "package.json")) as file:
            version = json.load(file)["version"]
        with open(os.path.join(PACKAGE, "pyproject.toml")) as file:
            self.assertEqual(re.search(r'^version = "(.*)"$', file.read(), re.M).group(1), version)
        self.assertEqual(pyro_mcp.__version__, version)

    def test_importing_and_making_one_does_nothing(self):
        script = "import threading, sys; before = set(sys.modules); from pyro_mcp import Pyro; Pyro(); Pyro(executable='/nowhere'); print(threading.active_count())"
        done = subprocess.run([sys.executable, "-W", "error", "-c", script], env={"PYTHONPATH": PACKAGE, "PATH": ""}, capture_output=True, text=True, timeout=60)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "1\n", ""))

    def test_types_are_shipped(self):
        self.assertTrue(os.path.exists(os.path.join(PACKAGE, "pyro_mcp", "py.typed")))
