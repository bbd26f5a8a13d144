#!/usr/bin/env node
/** Entry of `pyro`, and the only place that ends the process. */
import { flushOutput, runCommandLine } from "./cli/index.js";

const status = await runCommandLine(process.argv.slice(2));
// What was written has to be out before the end; a standard input that nobody finished reading must not keep us.
await flushOutput();
process.exit(status);
