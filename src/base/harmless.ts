/**
 * Foreign text for people's eyes: what could move a terminal's cursor, change its state, hide or reorder what stands around it
 * is written out as `\x1b` or `\u202e`. New lines and tabs stay.
 */
export function harmless(text: string): string {
  return text.replace(harmful, (character) => {
    const code = character.charCodeAt(0);
    return code < 0x100 ? `\\x${code.toString(16).padStart(2, "0")}` : `\\u${code.toString(16).padStart(4, "0")}`;
  });
}

/** Whether `text` is one line that `harmless` leaves as it is. */
export function isHarmlessLine(text: string): boolean {
  return !/[\n\t]/.test(text) && harmless(text) === text;
}

/** `text` for the middle of a sentence: harmless, on one line, at most `maxLength` characters of it. */
export function harmlessLine(text: string, maxLength: number): string {
  const cut = text.length > maxLength ? `${text.slice(0, maxLength)}…` : text;
  return harmless(cut).replace(/\n/g, "\\n").replace(/\t/g, "\\t");
}

// C0 but \t and \n, DEL and C1 (ECMA-48); line and paragraph separators; the characters of the Unicode bidirectional algorithm
// (UAX #9, section 2) that change the order of others; those without a width; halves of surrogate pairs.
// eslint-disable-next-line no-control-regex -- control characters are what is sought
const harmful = /[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;
