#!/usr/bin/env node
/** Entry of `pyro`, and the only place that ends the process: a standard input that nobody finished reading must not keep us. */
import { runCommandLine } from "./cli/index.js";

void runCommandLine(process.argv.slice(2), { mcp: () => import("./mcp/index.js") }).then((status) => process.exit(status));
