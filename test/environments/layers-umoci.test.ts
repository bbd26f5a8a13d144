/** Layers merged here and by umoci, path by path. Run as root, as umoci makes files of all owners and types then. */
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { beforeAll, expect, test } from "vitest";
import { runChild } from "../../src/base/child.js";
import { openLayer } from "../../src/environments/images/layer-tar.js";
import { mergeLayers, type Layer } from "../../src/environments/layers.js";
import { fsck, has, useDirectory } from "./erofs-check.js";
import { readErofs } from "./erofs-reader.js";
import { Layout } from "./image-maker.js";
import { adversarialLayers } from "./layers-corpus.js";
import { stream } from "./tar-maker.js";

const directory = useDirectory();
let ready = false;

beforeAll(async () => {
  ready = process.getuid?.() === 0 && (await has("umoci")) && (await has("python3"));
});

test("500 sequences of layers give the tree that umoci gives", { timeout: 1_200_000 }, async ({ skip }) => {
  skip(!ready, "not root, or umoci or python3 is not installed");
  let compared = 0;
  const sequencesFrom = (seed: number) => Array.from({ length: batch }, (_, index) => adversarialLayers(seed + index));
  let next = unpack(sequencesFrom(0));
  for (let seed = 0; compared < 500; seed += batch) {
    expect(seed, "most of them are to make sense to umoci").toBeLessThan(1000);
    const sequences = sequencesFrom(seed);
    const unpacked = await next;
    // umoci works at the next ones while we are at these.
    const enough = compared + unpacked.filter((each) => typeof each !== "string").length >= 500;
    next = enough ? Promise.resolve([]) : unpack(sequencesFrom(seed + batch));
    next.catch(() => {}); // awaited in the next round, unless this one fails
    for (const [index, theirs] of unpacked.entries()) {
      // What umoci refuses may be refused here too, or be clear all the same: a link before its target.
      if (typeof theirs === "string") continue;
      expect(withoutNow(await describe(seed + index, sequences[index]!), theirs), `seed ${seed + index}`).toEqual(withoutNow(theirs, theirs));
      compared++;
    }
  }
});

/** Any image in a layout directory: PYRO_TEST_IMAGE=DIRECTORY:TAG. */
const image = process.env["PYRO_TEST_IMAGE"];
if (image !== undefined) test("a real image gives the tree that umoci gives", { timeout: 600_000 }, async ({ skip }) => {
  skip(!ready, "not root, or umoci or python3 is not installed");
  const [layout = "", tag = ""] = image.split(":");
  const blob = async (digest: string) => readFile(join(layout, "blobs/sha256", digest.slice(7)));
  const { manifests } = JSON.parse(await readFile(join(layout, "index.json"), "utf8")) as { manifests: { digest: string; annotations: Record<string, string> }[] };
  const manifest = JSON.parse((await blob(manifests.find((each) => each.annotations["org.opencontainers.image.ref.name"] === tag)!.digest)).toString()) as { config: { digest: string }; layers: { digest: string; size: number }[] };
  const { rootfs } = JSON.parse((await blob(manifest.config.digest)).toString()) as { rootfs: { diff_ids: string[] } };
  const layers = manifest.layers.map(({ digest, size }, index) => ({ name: digest, open: () => openLayer({ digest, path: join(layout, "blobs/sha256", digest.slice(7)), sizeBytes: size, diffId: rootfs.diff_ids[index]! }) }));
  const described = await runChild("python3", [fileURLToPath(new URL("umoci-describe.py", import.meta.url)), layout, tag], { timeoutMs: 300_000, maxOutputBytes: 256 << 20 });
  const [theirs] = JSON.parse(described.stdout.toString()) as [Facts];
  const ours = await describe(1, layers);
  console.warn(`${Object.keys(theirs).length} paths of ${layout}:${tag} compared`);
  expect(withoutNow(ours, theirs)).toEqual(withoutNow(theirs, theirs));
});

const batch = 50;

type Facts = Record<string, Record<string, unknown>>;

/** What umoci makes of each sequence of layers, or why it makes nothing. */
async function unpack(sequences: readonly Buffer[][]): Promise<(Facts | string)[]> {
  const layout = new Layout(await mkdtemp(join(directory.path(), "image-")));
  for (const [index, layers] of sequences.entries()) await layout.image(layers, { tag: `x${index}` });
  await layout.finish();
  const described = await runChild("python3", [fileURLToPath(new URL("umoci-describe.py", import.meta.url)), layout.path, ...sequences.map((_, index) => `x${index}`)], { timeoutMs: 300_000, maxOutputBytes: 64 << 20 });
  expect(described.stderr).toBe("");
  return JSON.parse(described.stdout.toString()) as (Facts | string)[];
}

/** The same facts of the image that is made here. */
async function describe(seed: number, layers: readonly (Buffer | Layer)[]): Promise<Facts> {
  const path = directory.newName();
  await mergeLayers(layers.map((each, index) => (Buffer.isBuffer(each) ? { name: `${index}`, open: () => stream(each) } : each)), path);
  if (seed % 25 === 0) await fsck(path);
  const firstName = new Map<number, string>();
  const facts = [...readErofs(path)].map(([name, { content: _content, links, nid, mode, size, sha256, ...each }]) => {
    const linked = each.type !== "directory" && links > 1;
    if (linked && !firstName.has(nid)) firstName.set(nid, name);
    return [name, { ...each, ...(each.type !== "symlink" && { mode }), ...(each.type === "file" && { size, sha256 }), ...(linked && { links: firstName.get(nid) }) }] as const;
  });
  await rm(path);
  return Object.fromEntries(facts);
}

/**
 * umoci leaves the time at which it unpacked on directories that no layer names, and on those in which something was removed below a whiteout:
 * there it is taken out of both.
 */
function withoutNow(facts: Facts, theirs: Facts): Facts {
  return Object.fromEntries(Object.entries(facts).map(([name, each]) => (theirs[name]?.["type"] === "directory" && (theirs[name]["seconds"] as number) > 1_700_000_000 ? [name, { ...each, seconds: 0, nanoseconds: 0 }] : [name, each])));
}
