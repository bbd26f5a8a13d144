// The kernel's modules.
#ifndef PYRO_MODULES_H
#define PYRO_MODULES_H

// Inserts and removes every file of /modules; does nothing where there is no such directory.
void modules_insert(void);

#endif
