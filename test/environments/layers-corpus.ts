/** Sequences of layers as no builder makes them but any could: names that change their type, links across layers, whiteouts of all kinds. */
import { seeded } from "./fixtures.js";
import { archive, type Member } from "./tar-maker.js";

type Kind = "file" | "directory" | "symlink" | "other";

const names = ["a", "b", "c", "\xe9\xff"];

/** One sequence of tar archives, the lowest layer first; the same for the same seed. */
export function adversarialLayers(seed: number): Buffer[] {
  const random = seeded(seed);
  const chance = (percent: number) => random(100) < percent;
  const pick = <T>(list: readonly T[]): T => list[random(list.length)]!;
  // What is there, about: only so that most of what is made makes sense.
  const there = new Map<string, Kind>();
  const parentOf = (path: string) => path.slice(0, Math.max(0, path.lastIndexOf("/")));
  const ancestorsOf = (path: string) => path.split("/").slice(0, -1).map((_, index, all) => all.slice(0, index + 1).join("/"));
  const removeTree = (path: string) => {
    for (const each of there.keys()) if (each === path || each.startsWith(`${path}/`)) there.delete(each);
  };
  const setPath = (path: string, kind: Kind) => {
    if (kind !== "directory" || there.get(path) !== "directory") removeTree(path);
    for (const each of ancestorsOf(path)) if (!there.has(each)) there.set(each, "directory");
    there.set(path, kind);
  };
  const isPassable = (path: string) => ancestorsOf(path).every((each) => there.get(each) === undefined || there.get(each) === "directory");
  const newPath = (throughLinks: boolean): string => {
    for (let attempt = 0; attempt < 20; attempt++) {
      const path = Array.from({ length: 1 + random(3) }, () => pick(names)).join("/");
      if (isPassable(path)) return path;
      if (throughLinks && ancestorsOf(path).filter((each) => there.get(each) !== "directory").every((each) => there.get(each) === undefined || there.get(each) === "symlink")) return path;
    }
    return pick(names);
  };
  const spell = (path: string) => pick([path, path, path, `./${path}`, `/${path}`, `./${path.replaceAll("/", "//")}`]);
  const toBytes = (text: string) => Buffer.from(text, "latin1");
  let time = 1_000_000_000;

  return Array.from({ length: 2 + random(4) }, (_, layer) => {
    const tidy = chance(60); // every directory is named, and nothing leads through a link: then whiteouts may come anywhere
    const whiteouts: Member[] = [];
    const members: Member[] = [];
    if (layer > 0) {
      const lower = [...there.keys()].filter((path) => isPassable(path) || (!tidy && chance(50)));
      for (let count = random(4); count > 0; count--) {
        const path = lower.length > 0 && chance(85) ? pick(lower) : newPath(false);
        if (!isPassable(path) && tidy) continue;
        if (chance(30) && there.get(path) === "directory") {
          whiteouts.push({ name: toBytes(spell(`${path}/.wh..wh..opq`)) });
          for (const each of there.keys()) if (each.startsWith(`${path}/`)) there.delete(each);
        } else {
          const parent = parentOf(path);
          whiteouts.push({ name: toBytes(spell(`${parent === "" ? "" : `${parent}/`}.wh.${path.slice(path.lastIndexOf("/") + 1)}`)) });
          removeTree(path);
        }
      }
    }
    const facts = () => ({ mode: pick([0o644, 0o755, 0o4755, 0o2770, 0o1777, 0o600, 0]), uid: pick([0, 1000, 65534, 100_000]), gid: pick([0, 5, 70_000]), mtime: (time += 7), ...(chance(20) && { pax: { "SCHILY.xattr.user.tag": Buffer.from([random(256), 0, random(256), 0x0a]) } }) });
    for (let count = 1 + random(8); count > 0; count--) {
      const path = newPath(!tidy);
      if (tidy) {
        for (const each of ancestorsOf(path)) {
          if (members.some((member) => normal(member) === each && member.type === "5")) continue;
          members.push({ name: toBytes(`${each}/`), type: "5", ...facts(), mode: 0o755 });
          setPath(each, "directory");
        }
      }
      const files = [...there].filter(([each, kind]) => kind === "file" && isPassable(each) && each !== path && !path.startsWith(`${each}/`) && !each.startsWith(`${path}/`)).map(([each]) => each);
      const kind = pick(["file", "file", "file", "directory", "directory", "symlink", "hardlink", "fifo", "character"]);
      const name = toBytes(spell(path));
      if (kind === "file" || (kind === "hardlink" && files.length === 0)) {
        members.push({ name, data: Buffer.alloc(random(3) === 0 ? 0 : 1 + random(9000), 1 + random(255)), ...facts() });
        setPath(path, "file");
      } else if (kind === "directory") {
        members.push({ name: Buffer.concat([name, Buffer.from(chance(50) ? "/" : "")]), type: "5", ...facts(), mode: pick([0o755, 0o1777, 0o4711, 0]) }); // setgid would be inherited by what umoci makes below
        setPath(path, "directory");
      } else if (kind === "symlink") {
        const target = pick(["a", "b", "../b", "/c", "/a/b", "../../../../../a", "./b/.", "c/../a", "missing/x", path.slice(path.lastIndexOf("/") + 1)]);
        members.push({ name, type: "2", link: toBytes(target), uid: 5, gid: 6, mtime: (time += 7) });
        setPath(path, "symlink");
      } else if (kind === "hardlink") {
        members.push({ name, type: "1", link: toBytes(spell(pick(files))) });
        setPath(path, "file");
      } else {
        const { pax: _no, ...plain } = facts();
        members.push({ name, type: kind === "fifo" ? "6" : "3", ...plain, ...(kind === "character" && { device: [pick([1, 300, 4000]), pick([3, 255, 70_000])] as [number, number] }) });
        setPath(path, "other");
      }
    }
    if (!tidy) return archive(...whiteouts, ...members);
    for (const whiteout of whiteouts) members.splice(random(members.length + 1), 0, whiteout);
    return archive(...members);
  });
}

function normal({ name }: Member): string {
  return Buffer.from(name).toString("latin1").split("/").filter((each) => each !== "" && each !== ".").join("/");
}
