// ATTACH: a stream that is given what a job writes.
#ifndef PYRO_ATTACH_H
#define PYRO_ATTACH_H

#include "jobs.h"
#include "output.h"

struct stream;

struct attachment {
  struct job *job;
  uint64_t at[2];       // what was given so far, in all that the job has written
  uint64_t dropped[2];  // what was kept no more when its turn came
};

// NULL with an errno where there is no such job.
struct attachment *attach(const struct field *name, int *error);
// As stream_step, for the stream that has it.
bool attachment_step(struct stream *stream, struct output *output, bool *progress);
void attachment_free(struct attachment *attachment);

#endif
