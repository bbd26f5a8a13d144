/** The ranges and defaults of the public contract, and the one check for them. */
import { PyroError } from "../base/error.js";

export const limits = {
  vcpuCount: { min: 1, max: 32, default: 1 },
  memMib: { min: 128, max: 65_536, default: 1024 },
  /** The scratch disk: all that a VM can write. Sparse, so it costs what is written. */
  diskMib: { min: 64, max: 1_048_576, default: 10_240 },
  timeoutSeconds: { min: 1, max: 86_400, default: 30 },
  ttlSeconds: { min: 1, max: 604_800, default: 600 },
  /** Captured output, bytes, each stream. */
  captureBytes: { min: 1024, max: 64 << 20, default: 1 << 20 },
} as const;

export type LimitName = keyof typeof limits;

/** `value`, or the default where it is undefined. Throws INVALID_ARGUMENT that names the field, what was given and the range. */
export function checkLimit(name: LimitName, value: number | undefined): number {
  const { min, max, default: fallback } = limits[name];
  if (value === undefined) return fallback;
  if (!Number.isInteger(value) || value < min || value > max) {
    throw new PyroError("INVALID_ARGUMENT", `${snakeCase(name)} is ${String(value)}; it is a whole number from ${min} to ${max}.`, {
      hint: `Give a ${snakeCase(name)} from ${min} to ${max}, or leave it out for ${fallback}.`,
    });
  }
  return value;
}

function snakeCase(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}
