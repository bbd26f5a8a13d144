/** The port to the guest: a connection over one serial port, as protocol/PROTOCOL.md has it. */
export { connectChannel, type Channel, type GuestNetwork, type Identity } from "./channel.js";
export { type ConnectOptions, type Hello } from "./connect.js";
export { checkExec, type ExecOutcome, type ExecRequest, type ExecSuccess, type GuestProcess, type SignalScope } from "./process.js";
export { type Failure } from "./stream.js";
export { MAX_LISTING, type FileType, type GuestEntry, type GuestPath, type GuestStat, type ReadFileOptions, type WriteFileOptions } from "./files.js";
export { type Change, type MakeDirectoryOptions, type RemoveOptions } from "./entries.js";
export { type PackOptions, type PackedTree, type UnpackOptions } from "./copy.js";
export { MAX_TREE_DEPTH, MAX_TREE_ENTRIES, isHole, type TreeEntry, type TreeEntryType, type TreeTotals } from "./tree.js";
export { JOB_RING_BYTES, MAX_JOBS, type AttachedJob, type JobOutcome, type JobRecord, type JobRequest } from "./jobs.js";
export { type GuestStats } from "./stats.js";
