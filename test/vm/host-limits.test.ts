// Control groups need a kernel of one's own to be tried in all ways: the keeper runs in a guest here.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { packageRoot } from "../../src/base/paths.js";
import { pyro } from "./pyro.js";

const keeper = readFileSync(join(packageRoot, "build/x86_64/pyro-keeper"));

/** Runs a shell script as root in a guest that has the keeper as $k, and `delegate DIRECTORY`, which marks a group as systemd does. */
async function inGuest(script: string): Promise<string[]> {
  const before = `set -u; cat >/tmp/keeper; chmod +x /tmp/keeper; g=/sys/fs/cgroup
    k() { /tmp/keeper keep --lifeline 3 --grace-ms 0 "$@" 3</dev/zero; }
    delegate() { perl -e 'my ($path, $name, $one) = ($ARGV[0], "trusted.delegate", "1"); syscall(188, $path, $name, $one, 1, 0) == 0 or die $!' "$1"; }
    enable() { echo "+memory +pids +cpu" >"$1/cgroup.subtree_control"; }`;
  const result = await pyro(["run", "debian:12-base", "--quiet", "--timeout-seconds", "120", "--", "sh", "-c", `${before}\n${script}`], { input: keeper });
  expect(result.stderr).toBe("");
  expect(result.status).toBe(0);
  return result.stdout.trim().split("\n");
}

test("without a group that may be had, everything is as without limits", async () => {
  expect(await inGuest(`
    /tmp/keeper limits memory.max=1
    k --limit memory.max=1 -- /bin/sh -c 'echo ran; exit 7'; echo $?
    enable $g; mkdir -p /run/systemd/system
    /tmp/keeper limits memory.max=1
    k --limit memory.max=1 -- /bin/sh -c 'echo ran; exit 7'; echo $?
    find $g -name 'pyro-vm.*'
  `)).toEqual(["none: no controller is on in /sys/fs/cgroup/pyro", "ran", "7", "none: systemd delegated no control group to us", "ran", "7"]);
});

test("beside our own group: limits are set, hold, and go with the program and all its descendants", async () => {
  expect(await inGuest(`
    enable $g
    /tmp/keeper limits memory.max=50000000 pids.max=20 no.such=1
    k --limit memory.max=50003968 --limit memory.oom.group=1 --limit pids.max=20 --limit 'cpu.max=200000 100000' --limit cpu.weight=200 --limit no.such=1 -- /bin/sh -c '
      here=/sys/fs/cgroup$(sed s/^0::// /proc/self/cgroup); echo $here | tr -d 0-9; cd $here; cat memory.max memory.oom.group pids.max cpu.max cpu.weight; exit 5'; echo $?
    k --limit memory.max=50000000 --limit memory.oom.group=1 -- /usr/bin/perl -e '$x = "x" x 200000000; print "not ended\n"'; echo $?
    k --limit pids.max=5 -- /bin/sh -c 'for i in 1 2 3 4 5 6 7; do sleep 100 & done' 2>&1 | grep -c 'fork'
    k --limit pids.max=20 -- /bin/bash -c 'setsid sleep 1000 & (setsid sleep 1000 &) ; sleep 0.3'; echo $?
    find $g -name 'pyro-vm.*'
  `)).toEqual(["limits memory.max pids.max in /sys/fs/cgroup/pyro", "/sys/fs/cgroup/pyro/pyro-vm.", "50003968", "1", "20", "200000 100000", "200", "5", "137", "1", "0"]);
});

test("what systemd delegated: beside our group, or in it after all that is there has moved one down", async () => {
  expect(await inGuest(`
    enable $g; mkdir -p /run/systemd/system $g/beside/leaf $g/own $g/not
    delegate $g/beside; delegate $g/own
    in_group() { sh -c 'echo $$ >'"$1"'/cgroup.procs; '"$2"; }
    in_group $g/beside/leaf '/tmp/keeper limits pids.max=5; cat /proc/self/cgroup'
    in_group $g/own 'sleep 100 & /tmp/keeper limits pids.max=5; cat /proc/self/cgroup; cat '$g'/own/cgroup.procs; /tmp/keeper limits pids.max=5; wc -l <'$g'/own/pyro/cgroup.procs; kill $!'
    in_group $g/not '/tmp/keeper limits pids.max=5; cat /proc/self/cgroup'
  `)).toEqual([
    "limits pids.max in /sys/fs/cgroup/beside", "0::/beside/leaf",
    "limits pids.max in /sys/fs/cgroup/own", "0::/own/pyro", "limits pids.max in /sys/fs/cgroup/own", "3",
    "none: systemd delegated no control group to us", "0::/not",
  ]);
});

test("a killed keeper's group is cleared away by the next one", async () => {
  expect(await inGuest(`
    enable $g
    /tmp/keeper keep --lifeline 3 --grace-ms 0 --limit pids.max=5 -- /bin/sleep 1000 3</dev/zero &
    in_it() { cat $g/pyro/pyro-vm.*/cgroup.procs 2>/dev/null | grep -q .; }
    until in_it; do sleep 0.1; done
    kill -9 $!; wait $! 2>/dev/null
    find $g -name 'pyro-vm.*' | wc -l
    while in_it; do sleep 0.1; done
    k --limit pids.max=5 -- /bin/true
    find $g -name 'pyro-vm.*' | wc -l
  `)).toEqual(["1", "0"]);
});
