// How long a tar archive takes to become an EROFS image, against mkfs.erofs on the same tree unpacked beforehand.
// Usage, after `npm run build`: node bench/image-writer.mjs [ARCHIVE.tar] [PAIRS]
// Without an archive it makes one of some 250 MB from /usr/lib and /usr/share. Both write uncompressed images; ours is also
// hashed and synced to the disk, mkfs.erofs's neither. Times are of whole processes, Node's start included.
import { execFileSync, spawnSync } from "node:child_process";
import { createReadStream, lstatSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describeMs, median } from "./statistics.mjs";

const [first, second] = process.argv.slice(2);
if (first === "--write") await write(second, process.argv[4]);
else compare(first, Number(second ?? 7));

/** The child: one image, and what it took as JSON. */
async function write(tar, image) {
  const { readTar } = await import("../dist/environments/tar.js");
  const { writeErofs } = await import("../dist/environments/erofs.js");
  const start = performance.now();
  const result = await writeErofs(readTar(createReadStream(tar, { highWaterMark: 1 << 18 })), image);
  console.log(JSON.stringify({ ms: performance.now() - start, rssMb: process.resourceUsage().maxRSS / 1024, ...result }));
}

function compare(given, pairs) {
  const directory = mkdtempSync(join(tmpdir(), "pyro-bench-"));
  process.on("SIGINT", () => process.exit(130));
  process.on("exit", () => rmSync(directory, { recursive: true, force: true }));
  const tar = given ?? makeArchive(directory);
  const tree = join(directory, "tree");
  mkdirSync(tree);
  execFileSync("tar", ["-C", tree, "-xf", tar, "--numeric-owner", ...(process.getuid() === 0 ? ["--xattrs", "--xattrs-include=*"] : ["--exclude=./dev/*"])]);
  const ours = [];
  const theirs = [];
  const rows = [];
  for (let pair = 0; pair < pairs; pair++) {
    // In turns, and each first as often as second: whatever else the machine does falls on both.
    const steps = [() => (rows.push(run(ours, process.execPath, [fileURLToPath(import.meta.url), "--write", tar, join(directory, "ours")]))), () => run(theirs, "mkfs.erofs", [join(directory, "theirs"), tree])];
    for (const step of pair % 2 === 0 ? steps : steps.reverse()) step();
    if (pair < pairs - 1) for (const name of ["ours", "theirs"]) rmSync(join(directory, name));
  }
  const results = rows.map((row) => JSON.parse(row));
  const ratios = ours.map((each, index) => each / theirs[index]);
  console.log(`archive: ${mb(statSync(tar).size)} MB, ${results[0].entries} entries; ${pairs} pairs in turns`);
  console.log(`tar to image (hashed, synced): ${describeMs(ours)}; inside Node ${describeMs(results.map((each) => each.ms))}; ${mb(statSync(join(directory, "ours")).size)} MB`);
  console.log(`mkfs.erofs on the directory: ${describeMs(theirs)}; ${mb(statSync(join(directory, "theirs")).size)} MB`);
  console.log(`ratio of the medians: ${(median(ours) / median(theirs)).toFixed(2)}, median of the pairs' ratios: ${median(ratios).toFixed(2)} (goal: at most 1.5)`);
  console.log(`peak memory of Node: ${Math.max(...results.map((each) => each.rssMb)).toFixed(0)} MB (goal: under 300)`);
}

function run(times, program, args) {
  const start = performance.now();
  const { status, stdout, stderr, error } = spawnSync(program, args, { encoding: "utf8" });
  if (status !== 0) throw new Error(`${program}: ${error?.message ?? stderr}`);
  times.push(performance.now() - start);
  return stdout;
}

function makeArchive(directory) {
  const list = join(directory, "list");
  const tar = join(directory, "made.tar");
  const names = [];
  let left = 250e6;
  const walk = (path) => {
    for (const entry of readdirSync(path, { withFileTypes: true }).sort((a, b) => (a.name < b.name ? -1 : 1))) {
      if (left <= 0) return;
      const child = join(path, entry.name);
      if (entry.isDirectory()) walk(child);
      else if (entry.isFile() || entry.isSymbolicLink()) {
        left -= lstatSync(child).size;
        names.push(child.slice(1));
      }
    }
  };
  for (const top of ["/usr/share", "/usr/lib"]) {
    left = 125e6;
    walk(top);
  }
  writeFileSync(list, names.join("\0"));
  execFileSync("tar", ["--format=posix", "--null", "--verbatim-files-from", "-C", "/", "-T", list, "-cf", tar]);
  return tar;
}

function mb(bytes) {
  return (bytes / 1e6).toFixed(1);
}
