// Prints what is in the package as CycloneDX 1.5, from the lock file: what runs is a dependency, and what is bundled into the program is one too,
// although npm counts that as development. The same lock file gives the same bytes.
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { root } from "./setup.mjs";

const { status, stdout, stderr } = spawnSync("npm", ["sbom", "--package-lock-only", "--sbom-format", "cyclonedx"], { cwd: root, encoding: "utf8", maxBuffer: 64 << 20 });
if (status !== 0) {
  console.error(stderr);
  process.exit(1);
}
const sbom = JSON.parse(stdout);
const { name, version } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
const bundled = new Set(bundledPackages());
const lock = JSON.parse(readFileSync(join(root, "package-lock.json"), "utf8"));
const shipped = new Set(Object.entries(lock.packages).filter(([path, each]) => path !== "" && (each.dev !== true || bundled.has(`${nameOf(path)}@${each.version}`))).map(([path, each]) => `${nameOf(path)}@${each.version}`));

sbom.components = sbom.components.filter((each) => shipped.has(`${each.name}@${each.version}`)).map((each) => ({ ...each, scope: "required" }));
const kept = new Set([`${name}@${version}`, ...sbom.components.map((each) => each["bom-ref"])]);
sbom.dependencies = sbom.dependencies.filter(({ ref }) => kept.has(ref)).map(({ ref, dependsOn = [] }) => ({ ref, dependsOn: dependsOn.filter((each) => kept.has(each)) }));
sbom.metadata.component.name = name; // npm takes the directory's
delete sbom.metadata.timestamp;
delete sbom.serialNumber;
const digest = createHash("sha256").update(JSON.stringify(sbom)).digest("hex");
sbom.serialNumber = `urn:uuid:${digest.slice(0, 8)}-${digest.slice(8, 12)}-8${digest.slice(13, 16)}-8${digest.slice(17, 20)}-${digest.slice(20, 32)}`;
process.stdout.write(`${JSON.stringify(sbom, null, 2)}\n`);

/** As the bundler found them: their licences are in the package. */
function bundledPackages() {
  return readFileSync(join(root, "dist/main/LICENSES"), "utf8").split(/^-{72}$/m).map((text) => /^(\S+) (\S+) \(/.exec(text.trim())).filter((found) => found !== null).map(([, name, version]) => `${name}@${version}`);
}

function nameOf(path) {
  return path.slice(path.lastIndexOf("node_modules/") + "node_modules/".length);
}
