import { mkdtemp, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { firstFreeRange, userNamespaceHint } from "../../src/environments/subordinate-ids.js";
import { seeded } from "./fixtures.js";

test.each([
  ["", { first: 100_000, last: 165_535 }],
  ["a:100000:65536\n", { first: 165_536, last: 231_071 }],
  ["b:165536:65536\na:100000:65536\n", { first: 231_072, last: 296_607 }],
  ["a:165536:65536\n", { first: 100_000, last: 165_535 }],
  ["a:165535:1\n", { first: 165_536, last: 231_071 }],
  ["a:90000:10000\n", { first: 100_000, last: 165_535 }],
  ["a:90000:10001\n", { first: 100_001, last: 165_536 }],
  ["a:100000:1000\nb:231000:65536\nc:150000:10\n", { first: 150_010, last: 215_545 }],
  ["a:100000:400000\nb:200000:5\n", { first: 500_000, last: 565_535 }],
  ["nonsense\n:\na:b:c\na:1e5:65536\na:-1:5\na:100000:99999999999\n", { first: 100_000, last: 165_535 }],
  ["a:100000:4294967295\n", undefined],
  [`${"x\n".repeat(10_000)}`, undefined],
])("%#", (text, expected) => {
  expect(firstFreeRange(text)).toEqual(expected);
});

test("whatever is taken, what is found belongs to nobody", () => {
  const random = seeded(4);
  for (let round = 0; round < 300; round++) {
    const taken = Array.from({ length: random(40) }, () => ({ first: 60_000 + random(3_000_000), count: random(200_000) }));
    const { first, last } = firstFreeRange(taken.map((each) => `u:${each.first}:${each.count}`).join("\n"))!;
    expect(last - first).toBe(65_535);
    expect(taken.filter((each) => each.count > 0 && each.first <= last && each.first + each.count > first)).toEqual([]);
  }
});

test("the hint names what is free in both files, and no ids where that can't be known", async () => {
  const directory = await mkdtemp(join(tmpdir(), "pyro-subids-"));
  try {
    const [users, groups] = [join(directory, "subuid"), join(directory, "subgid")];
    expect(userNamespaceHint([users, groups])).toContain("--add-subuids 100000-165535 --add-subgids 100000-165535");
    await writeFile(users, "a:100000:65536\n");
    await writeFile(groups, "a:100000:65536\nb:165536:65536");
    expect(userNamespaceHint([users, groups])).toContain("--add-subuids 231072-296607 --add-subgids 231072-296607");
    await truncate(groups, 2 << 20);
    expect(userNamespaceHint([users, groups])).toContain(`65536 that nobody has in ${users} and ${groups}: sudo apt-get install -y uidmap && sudo usermod --add-subuids FIRST-LAST`);
  } finally {
    await rm(directory, { recursive: true });
  }
});
