/* Where a region file is made, and nowhere else. See place.h. */
#define _GNU_SOURCE
#include "place.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int place_open(struct place *place, const char *path)
{
	const char *slash = strrchr(path, '/');
	size_t len = slash ? (size_t)(slash - path) : 1;
	char folder[PATH_MAX];
	struct stat info;

	if (len == 0)
		len = 1; /* the root folder */
	if (len >= sizeof(folder))
		return -ENAMETOOLONG;
	memcpy(folder, slash ? path : ".", len);
	folder[len] = '\0';
	place->name = slash ? slash + 1 : path;
	place->folder = open(folder, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (place->folder < 0)
		return -errno;
	if (fstat(place->folder, &info) < 0 || info.st_uid != geteuid() ||
	    (info.st_mode & (S_IRWXG | S_IRWXO))) {
		place_close(place);
		return -EPERM;
	}
	return 0;
}

void place_close(struct place *place)
{
	if (place->folder >= 0)
		close(place->folder);
	place->folder = -1;
}

int place_create(const struct place *place, size_t size)
{
	int fd = openat(place->folder, place->name,
			O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);

	if (fd < 0)
		return -errno;
	if (ftruncate(fd, (off_t)size) < 0) {
		int err = -errno;

		close(fd);
		place_remove(place);
		return err;
	}
	return fd;
}

int place_open_file(const struct place *place)
{
	int fd = openat(place->folder, place->name, O_RDWR | O_NOFOLLOW | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

void place_remove(const struct place *place)
{
	unlinkat(place->folder, place->name, 0);
}
