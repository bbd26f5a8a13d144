// The root file system: the image below, what is written above it.
#ifndef PYRO_ROOT_H
#define PYRO_ROOT_H

// Finds the disks, mounts them as one overlay and makes that `/`, with /dev, /proc and /sys taken along.
void root_make(void);
// Nothing is written any more: remounts read-only what can be.
void root_seal(void);

#endif
