/*
 * libobjcg_preload.so: comes before the C library, by LD_PRELOAD, and so is what
 * the program and all its libraries call for memory.
 *
 * It decides nothing.  Each function calls the one of the same name in a table:
 * the C library's (or that of an allocator preloaded after us), until objcg is
 * enabled in this process, and the core's from then on.  So a process in which
 * objcg is not enabled, such as a child that inherited LD_PRELOAD, pays one load
 * and one jump for each call, and nothing else can go wrong in it.
 *
 * The table is found by dlsym(), which may itself allocate.  What it is given
 * meanwhile comes from a few bytes here, and is not freed.
 */
#define _GNU_SOURCE
#include "allocator.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

static __thread bool initialising __attribute__((tls_model("initial-exec")));
static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct allocator next;

/* --- while dlsym() runs --------------------------------------------------- */

static _Alignas(64) char early[8192];
static _Atomic size_t early_used;

static void *early_alloc(size_t alignment, size_t size)
{
	size_t at;

	/* Block sizes are kept before the blocks; 16 bytes, so that alignment is kept, too. */
	if (alignment < 16)
		alignment = 16;
	if (alignment > 64 || size > sizeof(early))
		return NULL;
	at = fetch_add_relaxed(&early_used, ((size + 15) & ~(size_t)15) + 16 + alignment);
	if (at + size + 16 + alignment > sizeof(early))
		return NULL;
	at = (at + 16 + alignment - 1) & ~(alignment - 1);
	*(size_t *)(early + at - 16) = size;
	return early + at;
}

static bool is_early(const void *p)
{
	return (const char *)p >= early && (const char *)p < early + sizeof(early);
}

static size_t early_size(const void *p)
{
	return *(const size_t *)((const char *)p - 16);
}

/* In place of the C library's, if anything was given out above. */
static struct allocator beneath;

static void free_unless_early(void *p)
{
	if (!is_early(p))
		(beneath.free)(p);
}

static void *realloc_unless_early(void *p, size_t size)
{
	void *q;

	if (!is_early(p))
		return (beneath.realloc)(p, size);
	q = (beneath.malloc)(size);
	if (q)
		memcpy(q, p, size < early_size(p) ? size : early_size(p));
	return q;
}

static size_t usable_unless_early(void *p)
{
	return is_early(p) ? early_size(p) : beneath.usable_size(p);
}

/* --- finding the next allocator ------------------------------------------- */

extern struct preload objcg_preload;

static void *find(const char *name)
{
	void *symbol = dlsym(RTLD_NEXT, name);

	if (!symbol) {
		static const char text[] = "libobjcg_preload.so: the C library lacks ";
		ssize_t n = write(2, text, sizeof(text) - 1);

		n = write(2, name, strlen(name));
		n = write(2, "\n", 1);
		(void)n;
		abort();
	}
	return symbol;
}

static void initialise(void)
{
	initialising = true;
	next = (struct allocator){
		.malloc = find("malloc"),
		.free = find("free"),
		.calloc = find("calloc"),
		.realloc = find("realloc"),
		.memalign = find("memalign"),
		.aligned_alloc = find("aligned_alloc"),
		.posix_memalign = find("posix_memalign"),
		.usable_size = find("malloc_usable_size"),
		.mmap = find("mmap"),
		.munmap = find("munmap"),
		.mremap = find("mremap"),
		.thread_create = find("pthread_create"),
	};
	if (load_relaxed(&early_used)) {
		beneath = next;
		next.free = free_unless_early;
		next.realloc = realloc_unless_early;
		next.usable_size = usable_unless_early;
	}
	initialising = false;
	store_release(&objcg_preload.current, &next);
}

/* The table; NULL: we are inside dlsym(). */
static const struct allocator *found(void)
{
	if (initialising)
		return NULL;
	pthread_once(&once, initialise);
	return &next;
}

/* --- fork ------------------------------------------------------------------- */

/*
 * What is registered first is called last before a fork, and first after it.  objcg stops
 * all threads that allocate; were the handlers of libraries to run meanwhile, one that waits
 * for such a thread, for a lock that it holds or for its end (OpenBLAS ends its pool), would
 * wait for ever.  objcg may be enabled long after they were loaded: but we come before them.
 * Only an allocator beneath us has to have its handlers inside ours, since who holds our
 * locks calls it; so it is called first.
 */
static __thread const struct fork_handlers *around __attribute__((tls_model("initial-exec")));

static void prepare(void)
{
	around = load_acquire(&objcg_preload.at_fork);
	if (around)
		around->prepare();
}

/* Those that were prepared for, should others have come meanwhile. */
static void in_parent(void)
{
	if (around)
		around->parent();
}

static void in_child(void)
{
	if (around)
		around->child();
}

static __attribute__((constructor)) void begin(void)
{
	const struct allocator *a = found();

	(a->free)((a->malloc)(1));
	objcg_preload.sees_forks = pthread_atfork(prepare, in_parent, in_child) == 0;
}

static void *first_malloc(size_t size)
{
	const struct allocator *a = found();

	return a ? (a->malloc)(size) : early_alloc(16, size);
}

static void first_free(void *p)
{
	const struct allocator *a = found();

	if (a)
		(a->free)(p); /* else it stays: there are a few bytes of it */
}

static void *first_calloc(size_t nr, size_t size)
{
	const struct allocator *a = found();

	if (a)
		return (a->calloc)(nr, size);
	/* Nothing there is given out twice: it is zero. */
	return __builtin_mul_overflow(nr, size, &size) ? NULL : early_alloc(16, size);
}

static void *first_realloc(void *p, size_t size)
{
	const struct allocator *a = found();
	void *q;

	if (a)
		return (a->realloc)(p, size);
	q = early_alloc(16, size);
	if (q && p)
		memcpy(q, p, size < early_size(p) ? size : early_size(p));
	return q;
}

static void *first_memalign(size_t alignment, size_t size)
{
	const struct allocator *a = found();

	return a ? a->memalign(alignment, size) : early_alloc(alignment, size);
}

static void *first_aligned_alloc(size_t alignment, size_t size)
{
	const struct allocator *a = found();

	return a ? (a->aligned_alloc)(alignment, size) : early_alloc(alignment, size);
}

static int first_posix_memalign(void **p, size_t alignment, size_t size)
{
	const struct allocator *a = found();

	if (a)
		return a->posix_memalign(p, alignment, size);
	*p = early_alloc(alignment, size);
	return *p ? 0 : ENOMEM;
}

static size_t first_usable_size(void *p)
{
	const struct allocator *a = found();

	return a ? a->usable_size(p) : early_size(p);
}

static void *first_mmap(void *address, size_t len, int protection, int flags, int fd, off_t offset)
{
	const struct allocator *a = found();

	if (a)
		return (a->mmap)(address, len, protection, flags, fd, offset);
	return (void *)syscall(SYS_mmap, address, len, protection, flags, fd, offset);
}

static int first_munmap(void *address, size_t len)
{
	const struct allocator *a = found();

	return a ? (a->munmap)(address, len) : (int)syscall(SYS_munmap, address, len);
}

static void *first_mremap(void *address, size_t old, size_t len, int flags, void *to)
{
	const struct allocator *a = found();

	if (a)
		return a->mremap(address, old, len, flags, to);
	return (void *)syscall(SYS_mremap, address, old, len, flags, to);
}

static int first_thread_create(pthread_t *thread, const pthread_attr_t *attr,
			       void *(*start)(void *), void *arg)
{
	const struct allocator *a = found();

	return a ? a->thread_create(thread, attr, start, arg) : EAGAIN;
}

static const struct allocator first = {
	.malloc = first_malloc,
	.free = first_free,
	.calloc = first_calloc,
	.realloc = first_realloc,
	.memalign = first_memalign,
	.aligned_alloc = first_aligned_alloc,
	.posix_memalign = first_posix_memalign,
	.usable_size = first_usable_size,
	.mmap = first_mmap,
	.munmap = first_munmap,
	.mremap = first_mremap,
	.thread_create = first_thread_create,
};

EXPORT struct preload objcg_preload = {
	.version = PRELOAD_VERSION,
	.size = sizeof(struct allocator),
	.next = &next,
	.current = &first,
};

/* --- what is called in the C library's place -------------------------------- */

/* The same under a name that is ours alone, so that it is not looked up in a table. */
extern struct preload preload __attribute__((alias("objcg_preload"), visibility("hidden")));

/* Acquire: a table that has just been put there is seen filled. On x86-64 a plain load. */
static inline const struct allocator *current(void)
{
	return load_acquire(&preload.current);
}

static size_t page_size(void)
{
	return (size_t)sysconf(_SC_PAGESIZE);
}

EXPORT void *malloc(size_t size)
{
	return (current()->malloc)(size);
}

EXPORT void free(void *p)
{
	(current()->free)(p);
}

EXPORT void *calloc(size_t nr, size_t size)
{
	return (current()->calloc)(nr, size);
}

EXPORT void *realloc(void *p, size_t size)
{
	return (current()->realloc)(p, size);
}

EXPORT void *reallocarray(void *p, size_t nr, size_t size)
{
	size_t bytes;

	if (__builtin_mul_overflow(nr, size, &bytes)) {
		errno = ENOMEM;
		return NULL;
	}
	return (current()->realloc)(p, bytes);
}

EXPORT void *memalign(size_t alignment, size_t size)
{
	return current()->memalign(alignment, size);
}

EXPORT void *aligned_alloc(size_t alignment, size_t size)
{
	return (current()->aligned_alloc)(alignment, size);
}

EXPORT int posix_memalign(void **p, size_t alignment, size_t size)
{
	return current()->posix_memalign(p, alignment, size);
}

EXPORT void *valloc(size_t size)
{
	return current()->memalign(page_size(), size);
}

EXPORT void *pvalloc(size_t size)
{
	size_t page = page_size();
	size_t rounded;

	if (__builtin_add_overflow(size, page - 1, &rounded)) {
		errno = ENOMEM;
		return NULL;
	}
	rounded &= ~(page - 1);
	return current()->memalign(page, rounded ? rounded : page);
}

EXPORT size_t malloc_usable_size(void *p)
{
	return p ? current()->usable_size(p) : 0;
}

/* C23; a C library that has them would free the block behind our back. */
EXPORT void free_sized(void *p, size_t size)
{
	(void)size;
	(current()->free)(p);
}

EXPORT void free_aligned_sized(void *p, size_t alignment, size_t size)
{
	(void)alignment;
	(void)size;
	(current()->free)(p);
}

EXPORT void *mmap(void *address, size_t len, int protection, int flags, int fd, off_t offset)
{
	return (current()->mmap)(address, len, protection, flags, fd, offset);
}

#if defined(__LP64__)
EXPORT void *mmap64(void *address, size_t len, int protection, int flags, int fd, off_t offset)
{
	return (current()->mmap)(address, len, protection, flags, fd, offset);
}
#endif

EXPORT int munmap(void *address, size_t len)
{
	return (current()->munmap)(address, len);
}

EXPORT void *mremap(void *address, size_t old, size_t len, int flags, ...)
{
	void *to = NULL;

	if (flags & ~MREMAP_MAYMOVE) {
		va_list arguments;

		va_start(arguments, flags);
		to = va_arg(arguments, void *);
		va_end(arguments);
	}
	return current()->mremap(address, old, len, flags, to);
}

EXPORT int pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *),
			  void *arg)
{
	return current()->thread_create(thread, attr, start, arg);
}
