import { expect, test } from "vitest";
import { PyroError } from "../../src/base/error.js";
import { environmentDigest, parseManifest, printManifest, type Manifest } from "../../src/environments/manifest.js";
import { seeded } from "./fixtures.js";

const one = `sha256:${"1".repeat(64)}`;
const manifest: Manifest = {
  digest: one,
  name: "debian:12",
  version: "12",
  description: "Debian 12 with Git",
  distribution: "debian",
  platform: "linux/amd64",
  source: "debian:bookworm",
  createdAt: "2026-11-23T21:00:00.000Z",
  kernel: { version: "6.1.0-1-test", id: "6.1.0-1-test_6.1.1-1", digest: one, source: "debian:linux-image" },
  guestDigest: one,
  files: { "root.erofs": { sizeBytes: 4096, digest: one }, vmlinux: { sizeBytes: 1, digest: one }, initramfs: { sizeBytes: 2, digest: one } },
  packages: [{ name: "bash", version: "5.2.15-2+b7" }],
};

const written = `{
  "schema_version": 1,
  "digest": "${one}",
  "name": "debian:12",
  "version": "12",
  "description": "Debian 12 with Git",
  "distribution": "debian",
  "platform": "linux/amd64",
  "source": "debian:bookworm",
  "created_at": "2026-11-23T21:00:00.000Z",
  "kernel": {
    "version": "6.1.0-1-test",
    "id": "6.1.0-1-test_6.1.1-1",
    "digest": "${one}",
    "source": "debian:linux-image"
  },
  "guest_digest": "${one}",
  "files": {
    "root.erofs": {
      "size_bytes": 4096,
      "digest": "${one}"
    },
    "vmlinux": {
      "size_bytes": 1,
      "digest": "${one}"
    },
    "initramfs": {
      "size_bytes": 2,
      "digest": "${one}"
    }
  },
  "packages": [
    {
      "name": "bash",
      "version": "5.2.15-2+b7"
    }
  ]
}
`;

test("written in snake case, and read back", () => {
  expect(printManifest(manifest)).toBe(written);
  expect(parseManifest(Buffer.from(written), "m")).toEqual(manifest);
});

test("an environment is its root disk and its kernel", () => {
  // sha256 of "pyro environment 1\nroot sha256:11…\nkernel sha256:11…\n"
  expect(environmentDigest(one, one)).toBe("sha256:8c6fb986238e6a60576c7e99b3bf09db5b8cc890e4280350ec2f0f7fae0c77a3");
});

const refused: [string, string, unknown][] = [
  ["schema_version", "a whole number from 1 to 1", 2],
  ["schema_version", "a whole number from 1 to 1", "1"],
  ["digest", "text like", "sha256:11"],
  ["digest", "text of 1 to 71", 5],
  ["digest", "text like", `SHA256:${"1".repeat(64)}`],
  ["name", "text of 1 to 256", ""],
  ["name", "text of 1 to 256", "a\u001b[2J"],
  ["name", "text of 1 to 256", "a".repeat(257)],
  ["platform", "text like", "windows/amd64"],
  ["created_at", "text like", "yesterday"],
  ["kernel.id", "text like", ".."],
  ["kernel.id", "text like", "a/b"],
  ["kernel.version", "text of 1 to 128", null],
  ["kernel", "is not a JSON object", []],
  ["guest_digest", "text of", undefined],
  ["files", "is not a JSON object", null],
  ["files.vmlinux", "is not a JSON object", undefined],
  ["files.vmlinux.size_bytes", "a whole number from 1 to", 0],
  ["files.vmlinux.size_bytes", "a whole number from 1 to", -1],
  ["files.vmlinux.size_bytes", "a whole number from 1 to", 1.5],
  ["files.vmlinux.size_bytes", "a whole number from 1 to", 1e300],
  ["packages", "a list of at most 20000", {}],
  ["packages", "a list of at most 20000", Array.from({ length: 20_001 }, () => ({ name: "a", version: "1" }))],
  ["packages", "packages[0] of m is not a JSON object", ["a"]],
  ["packages", "name of packages[0]", [{ version: "1" }]],
];

test.each(refused)("refused: %s is not %s", (path, why, value) => {
  const record = JSON.parse(written) as Record<string, unknown>;
  const steps = path.split(".");
  const last = steps.pop()!;
  const parent = steps.reduce((at, step) => at[step] as Record<string, unknown>, record);
  if (value === undefined) delete parent[last];
  else parent[last] = value;
  expect(() => parseManifest(Buffer.from(JSON.stringify(record)), "m")).toThrow(expect.objectContaining({ code: "ENVIRONMENT_INVALID", message: expect.stringContaining(why) }));
});

test.each([["nothing", ""], ["half", written.slice(0, 300)], ["null", "null"], ["a list", "[]"], ["deep", "[".repeat(100_000)], ["bytes that are no text", "\xff\xfe"]])("refused: %s", (_, text) => {
  expect(() => parseManifest(Buffer.from(text, "latin1"), "m")).toThrow(expect.objectContaining({ code: "ENVIRONMENT_INVALID" }));
});

test.each(["\u009b2J", "\u202e", "a\nb", "\ud800"])("text with %j in it is refused", (text) => {
  expect(() => parseManifest(Buffer.from(written.replace('"name": "debian:12"', `"name": ${JSON.stringify(text)}`)), "m")).toThrow("name of m is not text of 1 to 256 characters");
});

test("fields of the prototype are not fields", () => {
  const text = written.replace('"name": "debian:12"', '"__proto__": {"name": "x"}, "constructor": 1');
  expect(() => parseManifest(Buffer.from(text), "m")).toThrow("name of m is not text");
});

test("any bytes changed: read, or refused as ENVIRONMENT_INVALID", () => {
  const random = seeded(3);
  for (let round = 0; round < 5000; round++) {
    const data = Buffer.from(written);
    for (let change = 0; change <= random(3); change++) data[random(data.length)] = random(256);
    try {
      parseManifest(data, "m");
    } catch (error) {
      if (!(error instanceof PyroError) || error.code !== "ENVIRONMENT_INVALID") throw error;
    }
  }
});
