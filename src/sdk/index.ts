export { Pyro, type PullOptions, type RunInVmOptions } from "./pyro.js";
