// From a bare checkout to a command's output from inside a real VM.
import { run, say, setUp } from "./setup.mjs";

setUp();
say("pyro run debian:12 -- git --version");
run(process.execPath, ["dist/main.cjs", "run", "debian:12", "--", "git", "--version"]);
