import { expect, test } from "vitest";
import { aptError, withoutPassword } from "../../src/environments/apt-error.js";

test.each([
  ["http://mirror.invalid/debian", "http://mirror.invalid/debian"],
  ["http://user:secret@mirror.invalid/debian x", "http://mirror.invalid/debian x"],
  ["http://user:sec@ret@mirror.invalid/debian", "http://mirror.invalid/debian"],
  ["deb http://a:b@one.invalid/@x deb https://c@two.invalid", "deb http://one.invalid/@x deb https://two.invalid"],
])("no password: %s", (text, expected) => {
  expect(withoutPassword(text)).toBe(expected);
});

test("a mirror's words do not steer the terminal", () => {
  expect(aptError("It failed", "E: Failed to fetch \x1b]0;title\x07 \u009b31m \u202edorf\r\n").message).toBe("It failed: E: Failed to fetch \\x1b]0;title\\x07 \\x9b31m \\u202edorf");
});
