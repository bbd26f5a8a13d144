// Prepares the KVM lane: a home of its own with one environment in it. PYRO_TEST_CACHE names a directory to keep between runs, as for the VM tests.
import { prepareHome } from "../vm/setup.js";

export default (): Promise<() => Promise<void>> => prepareHome(["debian:12-base"]);
