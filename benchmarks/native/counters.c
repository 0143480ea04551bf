/* Preloaded into a process: counts what it asks of the disk and of the heap. Read by name with ctypes.CDLL(None).
   LARGE_BLOCK is far above what a row needs and below a batch, so what is counted is copies of whole columns. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/uio.h>
#include <unistd.h>

#define LARGE_BLOCK (256 * 1024)

atomic_long n4a_syncs, n4a_writes, n4a_bytes_written, n4a_large_bytes, n4a_allocations;

extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t), *__libc_memalign(size_t, size_t);

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static ssize_t wrote(ssize_t size) {
    if (size > 0) { n4a_writes++; n4a_bytes_written += size; }
    return size;
}
static void asked(size_t size) {
    n4a_allocations++;
    if (size >= LARGE_BLOCK) n4a_large_bytes += size;
}

int fsync(int file) { n4a_syncs++; return NEXT(fsync)(file); }
int syncfs(int file) { n4a_syncs++; return NEXT(syncfs)(file); }
int fdatasync(int file) { n4a_syncs++; return NEXT(fdatasync)(file); }
ssize_t write(int file, const void *data, size_t size) { return wrote(NEXT(write)(file, data, size)); }
ssize_t pwrite(int file, const void *data, size_t size, off_t at) { return wrote(NEXT(pwrite)(file, data, size, at)); }
ssize_t pwrite64(int file, const void *data, size_t size, off64_t at) { return wrote(NEXT(pwrite64)(file, data, size, at)); }
ssize_t writev(int file, const struct iovec *parts, int count) { return wrote(NEXT(writev)(file, parts, count)); }

void *malloc(size_t size) { asked(size); return __libc_malloc(size); }
void *calloc(size_t count, size_t size) { asked(count * size); return __libc_calloc(count, size); }
void *realloc(void *block, size_t size) { asked(size); return __libc_realloc(block, size); }
void *memalign(size_t alignment, size_t size) { asked(size); return __libc_memalign(alignment, size); }
void *aligned_alloc(size_t alignment, size_t size) { asked(size); return __libc_memalign(alignment, size); }
int posix_memalign(void **block, size_t alignment, size_t size) {
    asked(size);
    *block = __libc_memalign(alignment, size);
    return *block ? 0 : ENOMEM;
}
