/*
 * The place of a region file: a name in a folder that is this user's alone.
 *
 * The folder is opened once, and what is asked about it (whose it is, who may enter)
 * and what is done in it go by that descriptor.  Whoever puts another folder, or a
 * symbolic link, at its path in between changes nothing that is done here.
 */
#ifndef OBJCG_PLACE_H
#define OBJCG_PLACE_H

#include <stddef.h>

struct place {
	int folder;
	const char *name; /* the end of the path that it was opened by */
};

/*
 * Opens the folder that `path` is in.  Returns 0, or -errno: -ENOTDIR (also a symbolic
 * link), -EPERM (another user's, or open to others), and what open() says.
 */
int place_open(struct place *place, const char *path);
void place_close(struct place *place);

/* Makes the file, of this many bytes, mode 0600; its descriptor, or -errno: -EEXIST. */
int place_create(const struct place *place, size_t size);
/* Opens the file that is there, to write to it; its descriptor, or -errno. */
int place_open_file(const struct place *place);
void place_remove(const struct place *place);

#endif
