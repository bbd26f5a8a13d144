import { Option, InvalidArgumentError } from "commander";
import { limits } from "../core/index.js";

/** A flag that takes a whole number, with its range and default in the help. The range itself is checked in core. */
export function limitOption(flags: string, description: string, name: "vcpuCount" | "memMib" | "timeoutSeconds" | "ttlSeconds"): Option {
  const { min, max, default: fallback } = limits[name];
  return new Option(flags, `${description} (${min} to ${max}, default ${fallback})`).argParser((text: string) => {
    if (!/^-?[0-9]{1,15}$/.test(text)) throw new InvalidArgumentError(`It is a whole number from ${min} to ${max}.`);
    return Number(text);
  });
}
