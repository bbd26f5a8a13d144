/** WWW-Authenticate (RFC 9110, 11.6.1) as registries send it. */

export interface Challenge {
  /** In small letters: `bearer`, `basic`. */
  scheme: string;
  /** Names in small letters. */
  parameters: ReadonlyMap<string, string>;
}

const maxLength = 8192;
const maxChallenges = 16;

/** What could be read of the header; nothing of one that makes no sense. */
export function parseChallenges(header: string): Challenge[] {
  const found: Challenge[] = [];
  if (header.length > maxLength) return found;
  // A scheme, or a parameter with a token or a quoted string as its value; commas stand between all of them.
  const part = /\s*(?:,\s*)*(?:([A-Za-z0-9!#$%&'*+.^_`|~-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([A-Za-z0-9!#$%&'*+.^_`|~/:@-]*))|([A-Za-z0-9!#$%&'*+.^_`|~-]+)(?=\s|,|$))/y;
  let parameters = new Map<string, string>();
  while (part.lastIndex < header.length) {
    const match = part.exec(header);
    if (match === null) break;
    const [, name, quoted, token, scheme] = match;
    if (scheme !== undefined) {
      if (found.length === maxChallenges) break;
      parameters = new Map();
      found.push({ scheme: scheme.toLowerCase(), parameters });
    } else if (name !== undefined && !parameters.has(name.toLowerCase())) {
      parameters.set(name.toLowerCase(), quoted === undefined ? token! : quoted.replace(/\\(.)/g, "$1"));
    }
  }
  return found;
}
