/** Versions of Debian packages (deb-version(7)). */

/** Below 0 if `a` is older than `b`, above 0 if it is newer. */
export function compareVersions(a: string, b: string): number {
  const [left, right] = [parts(a), parts(b)];
  return left.epoch - right.epoch || comparePart(left.upstream, right.upstream) || comparePart(left.revision, right.revision);
}

function parts(version: string): { epoch: number; upstream: string; revision: string } {
  const [, epoch = "0", upstream = "", revision = ""] = /^(?:([0-9]{1,9}):)?(.*?)(?:-([^-]*))?$/.exec(version) ?? [];
  return { epoch: Number(epoch), upstream, revision };
}

/** Text and numbers by turns. In text `~` comes before the end, the end before letters, letters before all else. */
function comparePart(a: string, b: string): number {
  let [left, right] = [a, b];
  while (left !== "" || right !== "") {
    const [leftText, rightText] = [/^[^0-9]*/.exec(left)![0], /^[^0-9]*/.exec(right)![0]];
    for (let index = 0; index < Math.max(leftText.length, rightText.length); index++) {
      const difference = rank(leftText[index]) - rank(rightText[index]);
      if (difference !== 0) return difference;
    }
    [left, right] = [left.slice(leftText.length), right.slice(rightText.length)];
    const [leftNumber, rightNumber] = [/^[0-9]*/.exec(left)![0], /^[0-9]*/.exec(right)![0]];
    const difference = BigInt(leftNumber || 0) - BigInt(rightNumber || 0);
    if (difference !== 0n) return difference < 0n ? -1 : 1;
    [left, right] = [left.slice(leftNumber.length), right.slice(rightNumber.length)];
  }
  return 0;
}

function rank(character: string | undefined): number {
  if (character === undefined) return 0;
  if (character === "~") return -1;
  return /[A-Za-z]/.test(character) ? character.charCodeAt(0) : character.charCodeAt(0) + 256;
}
