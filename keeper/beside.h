/*
 * A second program, which runs beside the one that is kept and ends with it: the gateway that a VM's network card is connected to. If it ends
 * first, the kept one goes on without. It has no descriptors but those that are meant for it; 0, 1 and 2 are /dev/null where nothing else is.
 */
#ifndef PYRO_BESIDE_H
#define PYRO_BESIDE_H

#include <stdbool.h>

#include "place.h"

enum {
    BESIDE_MAX_WORDS = 64,
    BESIDE_MAX_GIVEN = 4,
    /* When the kept program is gone: time for what is left to be written down. */
    BESIDE_LOOK_MS = 100,
    BESIDE_LOOKS = 30, /* three seconds in which we run: where the host stood still, the second program had no time either */
};

struct beside {
    char *words[BESIDE_MAX_WORDS + 1];
    int word_count; /* 0: there is none */
    /* A connected pair of sockets, one end each: the kept program's descriptor, and this one's. */
    int cable, cable_theirs;
    int ends[2];
    /* Descriptors of our maker's that are this one's alone. */
    struct {
        int from, to;
    } given[BESIDE_MAX_GIVEN];
    int given_count;
};

/* `what` is FD=FD; false if it is anything else, or one too many. */
bool beside_set_cable(struct beside *beside, const char *what);
bool beside_give(struct beside *beside, const char *what);

/* Whether all descriptors are below `limit`. */
bool beside_is_below(const struct beside *beside, int limit);

/* Makes the cable. False with errno. */
bool beside_open(struct beside *beside);

/* In the kept program's process, before it is executed. */
void beside_connect(const struct beside *beside);
/* In this one's: leaves it its descriptors of those below `limit`, where all are that are not closed by an exec. */
void beside_enter(const struct beside *beside, const struct place *place, int limit);

#endif
