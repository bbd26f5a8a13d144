/** Images in real guests: what docker run would do with them. */
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Layout } from "../environments/image-maker.js";
import { push, startRegistry } from "../environments/registry-server.js";
import { archive, member } from "../environments/tar-maker.js";
import { pyro } from "./pyro.js";

const directory = mkdtempSync(join(tmpdir(), "pyro-images-"));
const layout = new Layout(join(directory, "layout"));
const many = 100_000;

beforeAll(async () => {
  execFileSync("gcc", ["-static", "-O2", "-o", join(directory, "hello"), new URL("hello.c", import.meta.url).pathname]);
  const program = archive({ name: "hello", mode: 0o755, data: readFileSync(join(directory, "hello")) });
  const config = { Env: ["IMAGE_A=1", "IMAGE_B=two words", "PATH=/nowhere"], Entrypoint: ["/hello"], Cmd: ["by", "itself"], User: "1000:1001", WorkingDir: "/srv/app" };
  await layout.image([program], { tag: "hello", config, compress: "gzip" });
  const files = Buffer.concat(Array.from({ length: many }, (_, index) => member({ name: `many/${index % 100}/${index}`, data: `${index}` })));
  await layout.image([program, archive(files)], { tag: "many", config: { Cmd: ["/hello", "count", "/many"] }, compress: "gzip" });
  await layout.finish();
});

afterAll(async () => {
  rmSync(directory, { recursive: true });
  const { environments } = JSON.parse((await pyro(["env", "list", "--json"])).stdout) as { environments: { name: string }[] };
  for (const { name } of environments) if (!name.startsWith("debian:12")) await pyro(["env", "remove", name]);
  await pyro(["env", "prune"]);
});

const run = async (...args: string[]) => {
  const { stdout, stderr, status } = await pyro(["run", "--quiet", ...args]);
  return { stderr, status, lines: stdout.trimEnd().split("\n") };
};

test("an image without shell and libc runs its own command, as its own user, where it says", async () => {
  expect(await run(`${layout.path}:hello`)).toEqual({ stderr: "", status: 7, lines: ["uid=1000 gid=1001 cwd=/srv/app", "arg=/hello", "arg=by", "arg=itself", "PATH=/nowhere", "IMAGE_A=1", "IMAGE_B=two words"] });
});

test("words go to the entrypoint; flags come before what the image says", async () => {
  expect((await run(`${layout.path}:hello`, "--", "a b", "")).lines).toEqual(["uid=1000 gid=1001 cwd=/srv/app", "arg=/hello", "arg=a b", "arg=", "PATH=/nowhere", "IMAGE_A=1", "IMAGE_B=two words"]);
  expect((await run("--user", "0", "--workdir", "/", "--env", "IMAGE_A=mine", "--entrypoint", "", `${layout.path}:hello`, "--", "/hello")).lines).toEqual(["uid=0 gid=0 cwd=/", "arg=/hello", "PATH=/nowhere", "IMAGE_A=mine", "IMAGE_B=two words"]);
  // Not the image's words, and in a directory that is made, as it is not there.
  expect((await run("--entrypoint", "/hello", "--workdir", "/new/place", `${layout.path}:hello`)).lines).toEqual(["uid=1000 gid=1001 cwd=/new/place", "arg=/hello", "PATH=/nowhere", "IMAGE_A=1", "IMAGE_B=two words"]);
});

test("a Debian of several layers, made by other programs, out of a registry, as its own user", async () => {
  const debian = join(directory, "debian");
  expect((await pyro(["env", "export", "debian:12-base", debian])).status).toBe(0);
  const umoci = (...args: string[]) => execFileSync("umoci", [args[0]!, "--image", `${debian}:latest`, ...(args[0] === "insert" && process.getuid!() !== 0 ? ["--rootless"] : []), ...args.slice(1)], { stdio: ["ignore", "ignore", "pipe"] });
  const { stdout: passwd } = await pyro(["run", "--quiet", "debian:12-base", "--", "cat", "/etc/passwd"]);
  writeFileSync(join(directory, "passwd"), `${passwd}agent:x:1000:1000::/home/agent:/bin/bash\n`);
  mkdirSync(join(directory, "home"));
  writeFileSync(join(directory, "home/note"), "note\n");
  umoci("insert", join(directory, "passwd"), "/etc/passwd");
  umoci("insert", join(directory, "home"), "/home/agent");
  umoci("insert", "--whiteout", "/etc/issue");
  umoci("config", "--config.user", "agent", "--config.workingdir", "/home/agent", "--config.env", "LAYERS=4", "--clear=config.cmd", "--config.cmd", "sh", "--config.cmd", "-c", "--config.cmd", "id -un; pwd; cat note; echo $LAYERS; ls /etc/issue; touch /etc/x; touch /tmp/mine && echo written; bash --version | head -n1 | cut -c1-8");
  const registry = await startRegistry(join(directory, "registry"));
  try {
    await push(debian, "latest", `${registry.host}/team/debian:1`);
    const { stdout, stderr, status } = await pyro(["run", "--quiet", `${registry.host}/team/debian:1`]);
    expect(stdout.split("\n"), stderr).toEqual(["agent", "/home/agent", "note", "4", "written", "GNU bash", ""]);
    expect(stderr.split("\n")).toEqual(["ls: cannot access '/etc/issue': No such file or directory", "touch: cannot touch '/etc/x': Permission denied", ""]);
    expect(status).toBe(0);
    expect((JSON.parse((await pyro(["env", "inspect", "--json", `${registry.host}/team/debian:1`])).stdout) as { image: { layers: unknown[] } }).image.layers).toHaveLength(4);
    await pyro(["env", "remove", `${registry.host}/team/debian:1`]);
  } finally {
    await registry.close();
  }
});

test("what the guest does to its root disk is seen by nobody else", async () => {
  // Root in the guest has the disk itself; it is read-only outside of it, whatever the guest sets on its side.
  const script = "disk=$(for each in /sys/block/vd*; do [ $(cat $each/ro) = 1 ] && echo /dev/${each##*/}; done); test -b $disk && echo one; blockdev --setrw $disk; mkdir -p /mnt/lower && mount -t erofs -o rw $disk /mnt/lower; mount -o remount,rw /mnt/lower; echo x > /mnt/lower/x; dd if=/dev/zero of=$disk bs=4096 count=1 conv=fsync && echo wrote; true";
  const { stdout } = await pyro(["run", "--quiet", "debian:12-base", "--", "sh", "-c", script]);
  expect(stdout).toBe("one\n");
  expect(JSON.parse((await pyro(["env", "inspect", "--json", "debian:12-base"])).stdout)).toMatchObject({ installed: true });
});

test("100,000 files", async () => {
  expect(await run("--timeout-seconds", "800", `${layout.path}:many`)).toEqual({ stderr: "", status: 0, lines: [`${many}`] });
});

test("an archive from standard input, under a name of one's own", async () => {
  const tar = execFileSync("tar", ["-C", layout.path, "-cf", "-", "."], { maxBuffer: 64 << 20 });
  const pulled = await pyro(["env", "pull", "own", "--source", "-", "--json"], { input: tar });
  expect(pulled.stderr).toContain("has 2 images");
  const saved = new Layout(join(directory, "saved"));
  await saved.image([archive({ name: "hello", mode: 0o755, data: readFileSync(join(directory, "hello")) })], { tag: "x", config: { Cmd: ["/hello", "saved"] } });
  await saved.finish();
  const again = await pyro(["env", "pull", "own", "--source", "-", "--json"], { input: execFileSync("tar", ["-C", saved.path, "-cf", "-", "."], { maxBuffer: 64 << 20 }) });
  expect(JSON.parse(again.stdout)).toMatchObject({ name: "own", installed: true, source: "the archive on standard input" });
  expect((await run("own")).lines.slice(0, 3)).toEqual(["uid=0 gid=0 cwd=/", "arg=/hello", "arg=saved"]);
});
