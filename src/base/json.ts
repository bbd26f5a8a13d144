/** The one place where records become what crosses a process boundary: snake_case keys, absent instead of undefined. */

export type Json = string | number | boolean | null | Json[] | { [key: string]: Json };

/** A plain record with camelCase keys as JSON with snake_case keys, keys sorted, undefined left out. */
export function toJson(value: unknown): Json {
  if (Array.isArray(value)) return value.map(toJson);
  if (value instanceof Date) return value.toISOString();
  if (typeof value === "bigint") return Number(value);
  if (value !== null && typeof value === "object") {
    const pairs = Object.entries(value)
      .filter(([, each]) => each !== undefined)
      .map(([key, each]) => [snakeCase(key), toJson(each)] as const)
      .sort(([a], [b]) => (a < b ? -1 : 1));
    return Object.fromEntries(pairs);
  }
  return value as Json;
}

/** As printed by every `--json`: two-space indent, keys sorted, a newline at the end. */
export function printJson(value: unknown): string {
  return `${JSON.stringify(toJson(value), undefined, 2)}\n`;
}

function snakeCase(key: string): string {
  return key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}
