// Every number of protocol/PROTOCOL.md ("Limits, in one place") and every bound that is this program's own.
#ifndef PYRO_LIMITS_H
#define PYRO_LIMITS_H

#define PROTOCOL_VERSION 1
#define MAX_PAYLOAD 65536u
#define MAX_MESSAGE 1048576u
#define MAX_FIELDS 8192u
#define MAX_STREAMS 256u
#define WINDOW 262144u
#define MAX_CREDIT 16777216u
#define FRAME_HEADER 8u
#define MAX_TREE_DEPTH 1024u
#define MAX_TREE_ENTRIES 1000000u
// Files with several names that a tree can hold as such, and the bytes of their paths; beyond that each name is a file of its own.
#define MAX_TREE_LINKS 65536u
#define MAX_TREE_LINK_BYTES 16777216u

// The extended header of one entry of a layer.
#define MAX_LAYER_RECORDS 1048576u

// A run of zero bytes this long can only be the padding before SYNC: the longest run inside valid frames is a
// payload of zeros (65,536) and the tail of its own header (at most 7).
#define PADDING_RUN (MAX_PAYLOAD + FRAME_HEADER)

// One connection's unsent output. Command output is read only below OUTPUT_DATA, frames from the host are taken only below
// OUTPUT_TAKE; what may still come above that are the last messages of at most MAX_STREAMS streams.
#define OUTPUT_DATA 262144u
#define OUTPUT_TAKE 458752u
#define OUTPUT_CAPACITY 1048576u

#define PIPE_BYTES 262144
#define MAX_PORTS 8u
#define MAX_DRAINS 512u
#define MAX_LINGERING 4096u
#define MAX_PASSWD_BYTES 1048576u
#define MAX_GROUPS 64u
#define MAX_MODULES 100u
// A process that had this much in memory leaves something that is worth giving back to the host.
#define LARGE_PROCESS_KIB 32768

// How long the notice that the host side is open may come after its data; under heavy load seconds. Too short, and a SYNC that was answered is taken back.
#define EARLY_MS 20000
#define GONE_MS 100
#define DEVICE_DEADLINE_MS 30000
// Disks are there when their driver is in; this is for a host that is very slow.
#define DISK_DEADLINE_MS 5000
#define TTY_TAIL_BYTES 1048576u

// Processes and threads of all commands together, by the memory. A shell that does nothing but fork itself takes half a MiB for each, so that a fork
// bomb ends at this limit and not at the end of memory; and the kernel allows 8 a MiB, so this program can always start another.
#define PROCESSES_PER_MIB 1u
#define LEAST_PROCESSES 256u
#define MOST_PROCESSES 16384u

#define MAX_JOBS 64u
#define MAX_JOB_NAME 64u
#define MAX_JOB_COMMAND 256u
#define MAX_JOB_RECORD (1u + MAX_JOB_NAME + 2u + MAX_JOB_COMMAND + 38u)
// Kept of each of a job's outputs, allocated as it comes.
#define JOB_RING_BYTES 262144u

// Levels that REMOVE goes down; each costs 16 bytes.
#define MAX_REMOVE_DEPTH 1048576u

#endif
