// The kernel's modules.
#ifndef PYRO_MODULES_H
#define PYRO_MODULES_H

// Inserts and removes every file of /modules but the one for later; does nothing where there is no such directory.
void modules_insert(void);

// From now on the host gets memory back that is free here. Once, and nothing where there is no such module.
void modules_insert_late(void);

#endif
