"""The client against a stand-in for ``pyro``: what can happen on the pipe, and to either end of it."""

import gc
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from concurrent.futures import ThreadPoolExecutor

from pyro_mcp import Pyro, PyroError, create_server

HERE = os.path.dirname(os.path.abspath(__file__))
STAND_IN = os.path.join(HERE, "stand_in_pyro.py")
ENVIRONMENT = {"PYTHONPATH": os.path.dirname(HERE), "PATH": os.environ["PATH"], "PYRO_EXECUTABLE": STAND_IN}


def is_running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def eventually(probe, seconds: float = 120) -> bool:
    end = time.monotonic() + seconds
    while not probe():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


class WithStandIn(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.log = os.path.join(directory.name, "log")
        os.environ["STAND_IN_LOG"] = self.log
        self.addCleanup(os.environ.pop, "STAND_IN_LOG")
        self.pyro = Pyro(executable=STAND_IN)
        self.addCleanup(self.pyro.close)

    def logged(self):
        try:
            with open(self.log) as file:
                return file.read().splitlines()
        except FileNotFoundError:
            return []

    def command(self, word, **more):
        return self.pyro.run_in_vm("x", command=word, **more)

    def child(self, script, **options):
        return subprocess.Popen([sys.executable, "-c", script], env={**ENVIRONMENT, "STAND_IN_LOG": self.log}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options)


class Calls(WithStandIn):
    def test_what_equals_its_default_is_not_sent(self):
        self.assertEqual(self.pyro.create_vm("e"), {"method": "create_vm", "params": {"environment": "e"}})
        self.assertEqual(self.pyro.create_vm("e", vcpu_count=1, mem_mib=1024, ttl_seconds=600, network=False), {"method": "create_vm", "params": {"environment": "e"}})
        self.assertEqual(self.pyro.create_vm("e", vcpu_count=True, network=1)["params"], {"environment": "e", "vcpu_count": True, "network": 1})
        self.assertEqual(
            self.pyro.exec_vm("v", command=("a", "b"), timeout_seconds=5, env={"A": "b"}, cwd="/", user="u", capture_bytes=2048)["params"],
            {"vm_id": "v", "command": ["a", "b"], "timeout_seconds": 5, "env": {"A": "b"}, "cwd": "/", "user": "u", "capture_bytes": 2048},
        )

    def test_what_is_said_of_the_network(self):
        self.assertEqual(self.pyro.create_vm("e", allow_hosts=("a.example",), publish=["0:80"])["params"], {"environment": "e", "allow_hosts": ["a.example"], "publish": ["0:80"]})
        self.assertEqual(self.pyro.create_vm("e", allow_hosts="a.example")["params"], {"environment": "e", "allow_hosts": "a.example"})
        self.assertEqual(self.pyro.set_network_vm("v", network=False), {"method": "set_network_vm", "params": {"vm_id": "v", "network": False}})
        self.assertEqual(self.pyro.set_network_vm("v", allow_nets=["10.0.0.0/8"])["params"], {"vm_id": "v", "allow_nets": ["10.0.0.0/8"]})
        self.assertEqual(self.pyro.audit_vm("v"), {"method": "audit_vm", "params": {"vm_id": "v"}})
        self.assertEqual(self.pyro.audit_vm("v", last=3)["params"], {"vm_id": "v", "last": 3})

    def test_every_method_is_one_of_the_same_name(self):
        for name in ("list_environments", "prune_environments", "list_vms", "reap_expired"):
            self.assertEqual(getattr(self.pyro, name)(), {"method": name, "params": {}})
        for name in ("pull_environment", "inspect_environment"):
            self.assertEqual(getattr(self.pyro, name)("e"), {"method": name, "params": {"environment": "e"}})
        for name in ("start_vm", "stop_vm", "delete_vm", "logs_vm", "network_info_vm"):
            self.assertEqual(getattr(self.pyro, name)("v"), {"method": name, "params": {"vm_id": "v"}})
        self.assertEqual(self.logged().count("start pipe"), 1)

    def test_answers_in_halves_large_ones_and_those_of_others(self):
        self.assertEqual(self.command("halves"), "é" * 1000)
        self.assertEqual(len(self.command("big")), 20_000_000)
        self.assertEqual(self.command("stranger"), "mine")

    def test_an_error(self):
        with self.assertRaises(PyroError) as caught:
            self.command("refuse")
        self.assertEqual((caught.exception.code, caught.exception.message, caught.exception.hint), ("NOT_FOUND", "no", "look"))

    def test_what_can_not_be_said_is_refused_and_harms_no_other_call(self):
        for command, message in ((b"x", "An argument of run_in_vm is nothing that JSON can say: a bytes."), ("x" * (8 << 20), "The arguments of run_in_vm take")):
            with self.assertRaises(PyroError) as caught:
                self.command(command)
            self.assertEqual(caught.exception.code, "INVALID_ARGUMENT")
            self.assertIn(message, caught.exception.message)
        with self.assertRaises(PyroError):
            self.command("x", mem_mib=float("nan"))
        self.assertEqual(self.command("stranger"), "mine")

    def test_news_come_in_the_calling_thread_and_in_order(self):
        news = []
        self.assertEqual(self.command("news", progress=lambda each: news.append((each, threading.current_thread()))), "done")
        self.assertEqual(news, [({"phase": phase}, threading.current_thread()) for phase in ("pull", "start", "exec")])
        self.assertEqual(self.command("news"), "done")

    def test_what_progress_raises_cancels_the_call(self):
        def fail(_):
            raise KeyError("mine")

        with self.assertRaises(KeyError):
            self.command("news", progress=fail)
        self.assertEqual(self.command("stranger"), "mine")

    def test_many_threads_each_get_their_own_answer(self):
        with ThreadPoolExecutor(64) as pool:
            results = list(pool.map(lambda index: self.command(f"sleep {0.2 if index % 3 else 0}", user=str(index)), range(300)))
        self.assertEqual([each["user"] for each in results], [str(index) for index in range(300)])
        self.assertEqual(self.logged().count("start pipe"), 1)

    def test_no_more_than_256_are_under_way_and_the_others_wait(self):
        threads = [threading.Thread(target=lambda: self.assertRaises(PyroError, self.command, "wait")) for _ in range(260)]
        for thread in threads:
            thread.start()
        self.assertTrue(eventually(lambda: self.logged().count("run_in_vm") >= 256))
        time.sleep(0.2)
        self.assertEqual(self.logged().count("run_in_vm"), 256)
        self.pyro.close()
        for thread in threads:
            thread.join(120)
        self.assertFalse(any(thread.is_alive() for thread in threads))


class Ends(WithStandIn):
    def test_a_process_that_dies_fails_every_call_and_the_next_one_starts_another(self):
        codes = []

        def wait(method, *arguments, **more):
            try:
                method(*arguments, **more)
            except PyroError as error:
                codes.append(error.code)

        first = self.pyro.status_vm("v")["pid"]
        threads = [threading.Thread(target=wait, args=(self.pyro.run_in_vm, "x"), kwargs={"command": "wait"}) for _ in range(5)]
        for thread in threads:
            thread.start()
        self.assertTrue(eventually(lambda: self.logged().count("run_in_vm") == 5))
        with self.assertRaises(PyroError) as caught:
            self.command("die")
        self.assertEqual(caught.exception.message, "`pyro pipe` ended with status 7 before it answered run_in_vm. It said: stand-in: the last words")
        for thread in threads:
            thread.join(120)
        self.assertEqual(codes, ["GUEST_LOST"] * 5)
        second = self.pyro.status_vm("v")["pid"]
        self.assertNotEqual(first, second)
        os.kill(second, signal.SIGKILL)
        self.assertTrue(eventually(lambda: not os.path.exists(f"/proc/{second}")))
        self.assertTrue(eventually(lambda: self.pyro._connections._current.ended))
        self.assertNotIn(self.pyro.status_vm("v")["pid"], (first, second))

    def test_killed_while_it_has_no_guest(self):
        pid = self.pyro.status_vm("v")["pid"]
        os.kill(pid, signal.SIGSTOP)

        def kill():
            eventually(lambda: self.pyro._connections._current._calls)  # asked, and not answered
            os.kill(pid, signal.SIGKILL)

        threading.Thread(target=kill).start()
        with self.assertRaises(PyroError) as caught:
            self.pyro.list_vms()
        self.assertEqual((caught.exception.code, caught.exception.message), ("INTERNAL", "`pyro pipe` was ended by signal 9 before it answered list_vms."))

    def test_nonsense_fails_the_calls_and_ends_the_process(self):
        for word, why in (("garbage", "Expecting value"), ("nobody", "what?")):
            pid = self.pyro.status_vm("v")["pid"]
            with self.assertRaises(PyroError) as caught:
                self.command(word)
            self.assertEqual(caught.exception.code, "PROTOCOL")
            self.assertIn(why, caught.exception.message)
            self.assertFalse(is_running(pid))

    def test_a_program_that_is_no_pyro(self):
        with Pyro(executable="/bin/false") as pyro, self.assertRaises(PyroError) as caught:
            pyro.list_vms()
        self.assertEqual(caught.exception.code, "INTERNAL")

    def test_close_ends_the_process_and_the_calls(self):
        pid = self.pyro.status_vm("v")["pid"]
        caught = []
        thread = threading.Thread(target=lambda: caught.append(self.assertRaises(PyroError, self.command, "wait")))
        thread.start()
        self.assertTrue(eventually(lambda: "run_in_vm" in self.logged()))
        self.pyro.close()
        self.pyro.close()
        self.assertFalse(is_running(pid))
        thread.join(120)
        self.assertFalse(thread.is_alive())
        with self.assertRaises(PyroError) as error:
            self.pyro.list_vms()
        self.assertEqual(error.exception.code, "INVALID_STATE")
        self.assertEqual(self.logged()[-1], "end")

    def test_a_with_block_ends_it(self):
        with Pyro(executable=STAND_IN) as pyro:
            pid = pyro.status_vm("v")["pid"]
        self.assertFalse(is_running(pid))

    def test_one_that_nobody_has_any_more_ends(self):
        pyro = Pyro(executable=STAND_IN)
        pid = pyro.status_vm("v")["pid"]
        del pyro
        gc.collect()
        self.assertTrue(eventually(lambda: not is_running(pid)))

    def test_python_ends_it_however_python_ends(self):
        begin = "from pyro_mcp import Pyro; import os, sys; p = Pyro(); print(p.status_vm('v')['pid'], flush=True); sys.stdin.read(); "
        for end, kill in (("", None), ("raise SystemExit(3)", None), ("1/0", None), ("os._exit(1)", None), ("", signal.SIGKILL), ("", signal.SIGTERM)):
            with self.subTest(end=end, kill=kill), self.child(begin + end, stderr=subprocess.DEVNULL) as child:
                pid = int(child.stdout.readline())
                self.assertTrue(is_running(pid))
                if kill is None:
                    child.stdin.close()
                else:
                    child.send_signal(kill)
                child.wait(120)
                self.assertTrue(eventually(lambda: not is_running(pid)))

    def test_nothing_is_complained_of_at_the_end(self):
        done = subprocess.run([sys.executable, "-X", "dev", "-W", "error", "-c", "from pyro_mcp import Pyro; p = Pyro(); p.list_vms(); q = Pyro(); q.list_vms(); q.close()"], env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
        self.assertEqual((done.returncode, done.stderr), (0, ""))


class Interrupts(WithStandIn):
    def test_ctrl_c_cancels_the_call_and_is_raised_again(self):
        script = """
import signal
from pyro_mcp import Pyro
p = Pyro()
print(p.status_vm("v")["pid"], flush=True)
try:
    p.run_in_vm("x", command="wait")
except KeyboardInterrupt:
    print("interrupted", p.status_vm("v")["pid"], flush=True)
"""
        with self.child(script, start_new_session=True) as child:
            pid = child.stdout.readline().strip()
            self.assertTrue(eventually(lambda: "run_in_vm" in self.logged()))
            os.killpg(child.pid, signal.SIGINT)  # as a terminal does: to all of the group
            self.assertEqual(child.stdout.readline(), f"interrupted {pid}\n")
            self.assertEqual(child.wait(120), 0)
        self.assertEqual(self.logged(), ["start pipe", "status_vm", "run_in_vm", "cancel", "status_vm", "end"])


class Forks(WithStandIn):
    def test_a_child_has_a_process_of_its_own_and_none_of_its_parents_pipes(self):
        script = """
import os, sys, threading
from pyro_mcp import Pyro
p = Pyro()
mine = p.status_vm("v")["pid"]
busy = threading.Thread(target=lambda: p.run_in_vm("x", command="sleep 1"))
busy.start()
child = os.fork()
if child == 0:
    theirs = p.status_vm("v")["pid"]
    inherited = [fd for fd in os.listdir("/proc/self/fd") if int(fd) > 2 and os.path.exists("/proc/self/fd/" + fd) and os.readlink("/proc/self/fd/" + fd).startswith("pipe:")]
    p.close()
    print("child", theirs != mine, len(inherited), flush=True)
    os._exit(0)
os.waitpid(child, 0)
busy.join()
print("parent", p.status_vm("v")["pid"] == mine, flush=True)
"""
        with self.child(script) as child:
            self.assertEqual(child.stdout.readline(), "child True 3\n")  # those to its own process
            self.assertEqual(child.stdout.readline(), "parent True\n")
            self.assertEqual(child.wait(120), 0)
        self.assertEqual(self.logged().count("start pipe"), 2)

    def test_a_child_that_lives_on_does_not_keep_the_parents_process(self):
        script = """
import os, sys, time
from pyro_mcp import Pyro
p = Pyro()
pid = p.status_vm("v")["pid"]
child = os.fork()
if child == 0:
    time.sleep(60)
print(pid, child, flush=True)
sys.stdin.read()
"""
        with self.child(script) as child:
            pid, grandchild = map(int, child.stdout.readline().split())
            child.kill()
            self.assertTrue(eventually(lambda: not is_running(pid)))
            os.kill(grandchild, signal.SIGKILL)

    def test_forking_while_others_start_and_call(self):
        with ThreadPoolExecutor(8) as pool:

            def use(index):
                with Pyro(executable=STAND_IN) as pyro:
                    return pyro.status_vm("v")["pid"]

            used = [pool.submit(use, index) for index in range(24)]
            for _ in range(8):
                child = os.fork()
                if child == 0:
                    code = 1
                    try:
                        with Pyro(executable=STAND_IN) as pyro:
                            pyro.list_vms()
                        code = 0
                    finally:
                        os._exit(code)
                self.assertEqual(os.waitpid(child, 0)[1], 0)
            pids = [each.result(60) for each in used]
        self.assertEqual(len(set(pids)), 24)
        self.assertFalse(any(is_running(pid) for pid in pids))


class Executable(unittest.TestCase):
    def setUp(self):
        before = dict(os.environ)
        self.addCleanup(lambda: (os.environ.clear(), os.environ.update(before)))
        os.environ.pop("PYRO_EXECUTABLE", None)
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = directory.name

    def fails(self, executable=None):
        with self.assertRaises(PyroError) as caught, Pyro(executable=executable) as pyro:
            pyro.list_vms()
        self.assertEqual(caught.exception.code, "HOST_MISSING")
        self.assertEqual(caught.exception.hint, "Install it with `npm install -g pyro-mcp`, or name it: Pyro(executable=...) or PYRO_EXECUTABLE.")
        return caught.exception.message

    def test_where_it_is_not(self):
        os.environ["PATH"] = self.directory
        self.assertEqual(self.fails(), "There is no command `pyro` in PATH.")
        self.assertEqual(self.fails("/nowhere/pyro"), "executable is '/nowhere/pyro', which does not exist.")
        os.environ["PYRO_EXECUTABLE"] = __file__
        self.assertEqual(self.fails(), f"PYRO_EXECUTABLE is {__file__!r}, which can't be executed.")

    def test_argument_before_variable_before_path(self):
        python = os.path.dirname(sys.executable)
        os.symlink(STAND_IN, os.path.join(self.directory, "pyro"))
        os.environ["PATH"] = f"{self.directory}:{python}"
        with Pyro() as pyro:
            self.assertEqual(pyro.list_vms()["method"], "list_vms")
        os.environ["PYRO_EXECUTABLE"] = "/nowhere"
        with Pyro(executable=STAND_IN) as pyro:
            self.assertEqual(pyro.list_vms()["method"], "list_vms")


class McpServer(unittest.TestCase):
    def test_the_process_becomes_pyro_mcp_serve(self):
        for script in ("import pyro_mcp; print('first'); pyro_mcp.create_server().run()", "from pyro_mcp import Pyro; print('first'); Pyro().create_server().run(transport='stdio')"):
            done = subprocess.run([sys.executable, "-c", script], env=ENVIRONMENT, input="hello", capture_output=True, text=True, timeout=300)
            self.assertEqual((done.returncode, done.stdout, done.stderr), (5, "first\nstand-in serves MCP: hello\n", ""))

    def test_another_transport(self):
        with self.assertRaises(PyroError) as caught:
            create_server(executable=STAND_IN).run(transport="sse")
        self.assertEqual((caught.exception.code, caught.exception.message), ("INVALID_ARGUMENT", "transport is 'sse'; the only one is 'stdio'."))

    def test_no_pyro(self):
        with self.assertRaises(PyroError) as caught:
            create_server(executable="/nowhere").run()
        self.assertEqual(caught.exception.code, "HOST_MISSING")
