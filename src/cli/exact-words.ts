import { readFileSync } from "node:fs";

/**
 * The last words of our own command line as they were given: Node decodes them as UTF-8 and puts U+FFFD where they are not,
 * which would name another file. Those that Node could decode stay as they are.
 */
export function exactWords(words: readonly string[], commandLine = () => readFileSync("/proc/self/cmdline")): (string | Buffer)[] {
  if (!words.some((word) => word.includes("\ufffd"))) return [...words];
  const given = commandLine().toString("latin1").split("\0").slice(0, -1).slice(-words.length).map((word) => Buffer.from(word, "latin1"));
  return words.map((word, index) => {
    const bytes = given[index];
    return bytes === undefined || bytes.toString("utf8") !== word || Buffer.from(word).equals(bytes) ? word : bytes;
  });
}
