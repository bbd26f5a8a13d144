#include "jobs.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cgroup.h"
#include "drain.h"
#include "frame.h"
#include "identity.h"

// In the order they were started.
static struct job *jobs[MAX_JOBS];
static unsigned job_count;

static struct job *find(const uint8_t *name, size_t length);
static bool make_room(void);
static void keep_words(struct job *job, const struct message *message);
static void keep_word(struct job *job, const struct field *word);
static void forget(struct job *job);
static void free_job(struct job *job);
static bool read_output(struct job_output *output);
static void end_output(struct job_output *output);
static void limit_output(struct job_output *output);
static void list_jobs(struct builder *builder);
static size_t put_job(uint8_t *at, const struct job *job);

struct job *job_reserve(const struct message *message, int *error) {
  struct field name = message->fields[TAG_JOB];
  *error = find(name.bytes, name.length) != NULL ? EEXIST : job_count == MAX_JOBS && !make_room() ? EAGAIN : 0;
  if (*error != 0) return NULL;
  struct job *job = must_allocate(NULL, sizeof *job);
  *job = (struct job){.pid = -1, .cgroup_fd = -1};
  memcpy(job->name, name.bytes, name.length);
  keep_words(job, message);
  for (int i = 0; i < 2; i++) {
    job->outputs[i].source.fd = -1;
    job->outputs[i].ring.most = JOB_RING_BYTES;
  }
  jobs[job_count++] = job;
  return job;
}

static struct job *find(const uint8_t *name, size_t length) {
  for (unsigned i = 0; i < job_count; i++)
    if (strlen(jobs[i]->name) == length && memcmp(jobs[i]->name, name, length) == 0) return jobs[i];
  return NULL;
}

// The oldest that has ended goes.
static bool make_room(void) {
  for (unsigned i = 0; i < job_count; i++)
    if (job_is_over(jobs[i])) {
      forget(jobs[i]);
      return true;
    }
  return false;
}

static void keep_words(struct job *job, const struct message *message) {
  if (message->fields[TAG_SHELL].bytes != NULL) keep_word(job, &message->fields[TAG_SHELL]);
  size_t at = 0;
  for (struct field word; next_field(message, TAG_ARG, &at, &word);) keep_word(job, &word);
}

static void keep_word(struct job *job, const struct field *word) {
  if (job->command_length > 0 && job->command_length < MAX_JOB_COMMAND) job->command[job->command_length++] = 0;
  size_t length = word->length < (size_t)(MAX_JOB_COMMAND - job->command_length) ? word->length : (size_t)(MAX_JOB_COMMAND - job->command_length);
  memcpy(job->command + job->command_length, word->bytes, length);
  job->command_length = (uint16_t)(job->command_length + length);
}

void job_abandon(struct job *job) { forget(job); }

static void forget(struct job *job) {
  for (unsigned i = 0; i < job_count; i++) {
    if (jobs[i] != job) continue;
    memmove(jobs + i, jobs + i + 1, (job_count - i - 1) * sizeof *jobs);
    job_count--;
    break;
  }
  job->forgotten = true;
  if (job->holders == 0) free_job(job);
}

// What the command left behind lives on.
static void free_job(struct job *job) {
  for (int i = 0; i < 2; i++) {
    drain(&job->outputs[i].source);
    free(job->outputs[i].ring.bytes);
  }
  if (job->cgroup_fd >= 0) close(job->cgroup_fd);
  cgroup_leave(job->cgroup);
  free(job);
}

void job_take(struct job *job, const struct job_parts *parts, bool ended, int status, int64_t ended_ns) {
  job->state = JOB_RUNNING;
  job->pid = parts->pid;
  job->cgroup = parts->cgroup;
  job->cgroup_fd = parts->cgroup_fd;
  job->started_ns = parts->started_ns;
  job->started_clock_ns = clock_ns() - (now_ns() - parts->started_ns);
  for (int i = 0; i < 2; i++) {
    int fd = source_release(parts->outputs[i]);
    if (fd >= 0) source_open(&job->outputs[i].source, fd);
    else job->outputs[i].at_end = true;
  }
  if (!ended) return;
  jobs_reaped(job->pid, status);
  job->ended_ns = ended_ns;
}

struct job *job_hold(const struct field *name, int *error) {
  struct job *job = find(name->bytes, name->length);
  *error = job == NULL || job->state == JOB_STARTING ? ENOENT : 0;
  if (*error != 0) return NULL;
  job->holders++;
  return job;
}

void job_release(struct job *job) {
  if (--job->holders == 0 && job->forgotten) free_job(job);
}

bool job_is_over(const struct job *job) { return job->state == JOB_ENDED && job->outputs[0].at_end && job->outputs[1].at_end; }

int job_signal(struct job *job, uint8_t number, uint8_t scope) {
  if (scope == 2 && job->cgroup_fd >= 0) {
    // Also what the command left behind when it ended itself.
    cgroup_kill(job->cgroup_fd);
    return 0;
  }
  // Once reaped, its process id may be another's.
  if (job->state != JOB_RUNNING) return ESRCH;
  if (scope != 0 && kill(-job->pid, number) == 0) return 0;
  return kill(job->pid, number) == 0 ? 0 : errno;
}

int jobs_answer(const struct message *message, struct builder *builder, const char **stage) {
  const struct field *fields = message->fields;
  *stage = "job";
  if (message->kind == KIND_JOBS) {
    list_jobs(builder);
    return 0;
  }
  struct job *job = find(fields[TAG_JOB].bytes, fields[TAG_JOB].length);
  if (job == NULL || job->state == JOB_STARTING) return ENOENT;
  if (message->kind == KIND_KILL_JOB) return job_signal(job, fields[TAG_SIGNAL].bytes[0], fields[TAG_SCOPE].bytes[0]);
  if (job->state != JOB_ENDED) return EBUSY;
  forget(job);
  return 0;
}

static void list_jobs(struct builder *builder) {
  static uint8_t list[MAX_JOBS * MAX_JOB_RECORD];
  size_t length = 0;
  for (unsigned i = 0; i < job_count; i++)
    if (jobs[i]->state != JOB_STARTING) length += put_job(list + length, jobs[i]);
  add_bytes(builder, TAG_JOB_LIST, list, length);
}

// protocol/PROTOCOL.md, "Jobs".
static size_t put_job(uint8_t *at, const struct job *job) {
  uint8_t *begin = at;
  size_t name = strlen(job->name);
  bool ended = job->state == JOB_ENDED, signalled = ended && WIFSIGNALED(job->status);
  *at++ = (uint8_t)name;
  memcpy(at, job->name, name);
  at += name;
  put_u16(at, job->command_length);
  memcpy(at + 2, job->command, job->command_length);
  at += 2 + job->command_length;
  put_u32(at, (uint32_t)job->pid);
  at[4] = !ended ? 0 : signalled ? 2 : 1;
  at[5] = (uint8_t)(!ended ? 0 : signalled ? WTERMSIG(job->status) : WEXITSTATUS(job->status));
  put_u64(at + 6, (uint64_t)job->started_clock_ns);
  put_u64(at + 14, (uint64_t)((ended ? job->ended_ns : now_ns()) - job->started_ns));
  put_u64(at + 22, job->outputs[0].ring.written);
  put_u64(at + 30, job->outputs[1].ring.written);
  return (size_t)(at + 38 - begin);
}

bool jobs_step(void) {
  bool any = false;
  for (unsigned i = 0; i < job_count; i++)
    for (int which = 0; which < 2; which++) any = read_output(&jobs[i]->outputs[which]) || any;
  return any;
}

static bool read_output(struct job_output *output) {
  static uint8_t buffer[MAX_PAYLOAD];
  bool any = false;
  // A few reads a turn: others want their share.
  for (int reads = 0; reads < 4 && !output->at_end && output->source.readable; reads++) {
    size_t want = output->limited && output->remaining < sizeof buffer ? (size_t)output->remaining : sizeof buffer;
    ssize_t count = want == 0 ? 0 : read(output->source.fd, buffer, want);
    if (count < 0 && errno == EAGAIN) {
      output->source.readable = false;
      if (output->limited) end_output(output);  // a child took some of it
      break;
    }
    any = true;
    if (count > 0) ring_write(&output->ring, buffer, (size_t)count);
    if (count > 0 && output->limited) output->remaining -= (uint64_t)count;
    if (count <= 0) end_output(output);
  }
  return any;
}

static void end_output(struct job_output *output) {
  output->at_end = true;
  drain(&output->source);
}

bool jobs_reaped(pid_t pid, int status) {
  for (unsigned i = 0; i < job_count; i++) {
    struct job *job = jobs[i];
    if (job->pid != pid || job->state != JOB_RUNNING) continue;
    job->state = JOB_ENDED;
    job->status = status;
    job->ended_ns = now_ns();
    for (int which = 0; which < 2; which++) limit_output(&job->outputs[which]);
    return true;
  }
  return false;
}

// What was written up to now still counts, what a child that was left behind writes later doesn't.
static void limit_output(struct job_output *output) {
  int waiting = 0;
  if (output->at_end) return;
  output->limited = true;
  if (ioctl(output->source.fd, FIONREAD, &waiting) == 0 && waiting > 0) output->remaining = (uint64_t)waiting;
  output->source.readable = true;
}

void jobs_close(void) {
  while (job_count > 0) {
    struct job *job = jobs[job_count - 1];
    if (job->state == JOB_RUNNING) {
      job_signal(job, SIGKILL, 2);
      job_signal(job, SIGKILL, 1);
    }
    forget(job);
  }
}
