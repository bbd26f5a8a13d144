// What comes with pyro from others: the lock file pins all of it by digest, nothing of what runs has scripts that npm would run, each package that we
// chose has its line in docs/dependencies.md, nothing has a known hole, and the package is the same bytes each time it is packed.
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, utimesSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { root, run, say } from "./setup.mjs";

/** Packages that run on a user's machine, ours not counted. Each one more is a decision. */
const maxRuntimePackages = 12;

const lock = JSON.parse(readFileSync(join(root, "package-lock.json"), "utf8"));
const manifest = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
const packages = Object.entries(lock.packages).filter(([path]) => path !== "");
const runtime = packages.filter(([, each]) => each.dev !== true);
const listed = readFileSync(join(root, "docs/dependencies.md"), "utf8");
const complaints = [];

for (const [path, each] of packages) {
  if (!(each.integrity ?? "").startsWith("sha512-")) complaints.push(`${path} has no SHA-512 digest in package-lock.json`);
  if (each.resolved !== undefined && !each.resolved.startsWith("https://registry.npmjs.org/")) complaints.push(`${path} comes from ${each.resolved}`);
}
for (const [path, each] of runtime) if (each.hasInstallScript) complaints.push(`${path} runs scripts when it is installed`);
if (runtime.length > maxRuntimePackages) complaints.push(`${runtime.length} packages at run time, over ${maxRuntimePackages}: ${runtime.map(([path]) => path).join(", ")}`);
for (const name of Object.keys({ ...manifest.dependencies, ...manifest.devDependencies })) if (!listed.includes(`\`${name}\``)) complaints.push(`${name} has no line in docs/dependencies.md`);
for (const name of ["preinstall", "install", "postinstall", "prepare"]) if (manifest.scripts[name] !== undefined) complaints.push(`pyro's own package has the script ${name}`);
const sbom = JSON.parse(spawnSync(process.execPath, [join(root, "scripts/sbom.mjs")], { encoding: "utf8", maxBuffer: 64 << 20 }).stdout || "{}");
for (const [path, each] of runtime) if (!sbom.components?.some(({ purl }) => decodeURIComponent(purl).endsWith(`/${path.replace(/^.*node_modules\//, "")}@${each.version}`))) complaints.push(`${path} is not in the bill of materials`);
for (const each of complaints) console.error(each);

const holes = audit();
const same = packTwice();
say(`supply: ${packages.length} packages pinned, ${runtime.length} at run time; audit: ${holes.said}; packed twice: ${same ? "the same bytes" : "NOT the same bytes"}`);
process.exit(complaints.length === 0 && holes.ok && same ? 0 : 1);

/** Of what runs, and of what builds: that could put something into it. A registry that can't be asked is no failure, but is said. */
function audit() {
  const { stdout } = spawnSync("npm", ["audit", "--json"], { cwd: root, encoding: "utf8", stdio: ["ignore", "pipe", "ignore"], timeout: 60_000 });
  try {
    const { metadata, vulnerabilities } = JSON.parse(stdout);
    const { total } = metadata.vulnerabilities;
    if (total > 0) console.error(Object.values(vulnerabilities).map(({ name, severity, range }) => `${name} ${range}: ${severity}`).join("\n"));
    return { ok: total === 0, said: total === 0 ? "nothing known" : `${total} known holes` };
  } catch {
    return { ok: true, said: "not asked, as the registry does not answer" };
  }
}

/** The second time from the same files with other times, as another checkout would have them. */
function packTwice() {
  const directory = mkdtempSync(join(tmpdir(), "pyro-supply-"));
  try {
    const digests = ["one", "two"].map((name) => {
      const into = join(directory, name);
      mkdirSync(into);
      run("npm", ["pack", "--ignore-scripts", "--silent", "--pack-destination", into], { stdio: ["ignore", "ignore", "inherit"] });
      for (const file of ["dist/index.js", "dist/main.cjs", "README.md"]) if (existsSync(join(root, file))) touch(join(root, file));
      return createHash("sha256").update(readFileSync(join(into, readdirSync(into)[0]))).digest("hex");
    });
    return digests[0] === digests[1];
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

function touch(file) {
  const { atime } = statSync(file);
  utimesSync(file, atime, new Date());
}
