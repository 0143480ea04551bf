/* Preloaded: one file operation that reads below a folder is refused, or all from that one on.
 *
 * crash_unreadable(folder, number, error, lasting): the number-th open, read, look at a file or list of a folder fails
 * with this error; number 0 ends it. crash_looks() tells how many there were, crash_unread() how many were refused.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static char watched[4096];
static atomic_long wanted, seen, refused;
static int with_error, is_lasting;

void crash_unreadable(const char *folder, long number, int error, int lasting) {
    atomic_store(&wanted, 0);
    snprintf(watched, sizeof watched, "%s/", folder);
    with_error = error, is_lasting = lasting;
    atomic_store(&seen, 0), atomic_store(&refused, 0);
    atomic_store(&wanted, number);
}

long crash_looks(void) { return atomic_load(&seen); }

long crash_unread(void) { return atomic_load(&refused); }

static int passes(const char *path) {
    long number = atomic_load(&wanted);
    if (!number || !path || strncmp(path, watched, strlen(watched)) != 0)
        return 1;
    long now = atomic_fetch_add(&seen, 1) + 1;
    if (now != number && !(is_lasting && now > number))
        return 1;
    atomic_fetch_add(&refused, 1);
    errno = with_error;
    return 0;
}

static int passes_fd(int fd) {
    char link[64], path[4096];
    if (!atomic_load(&wanted))
        return 1;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof path - 1);
    path[size < 0 ? 0 : size] = 0;
    return passes(path);
}

#define OPENS(name, before, ...)                                                                     \
    int name(__VA_ARGS__ const char *path, int flags, ...) {                                         \
        va_list more;                                                                                \
        va_start(more, flags);                                                                       \
        mode_t mode = flags & O_CREAT ? va_arg(more, mode_t) : 0;                                    \
        va_end(more);                                                                                \
        return passes(path) ? NEXT(name)(before path, flags, mode) : -1;                             \
    }
#define COMMA ,
OPENS(open, )
OPENS(open64, )
OPENS(openat, folder COMMA, int folder COMMA)
OPENS(openat64, folder COMMA, int folder COMMA)

ssize_t read(int fd, void *data, size_t size) { return passes_fd(fd) ? NEXT(read)(fd, data, size) : -1; }
ssize_t pread(int fd, void *data, size_t size, off_t at) { return passes_fd(fd) ? NEXT(pread)(fd, data, size, at) : -1; }
ssize_t pread64(int fd, void *data, size_t size, off64_t at) {
    return passes_fd(fd) ? NEXT(pread64)(fd, data, size, at) : -1;
}
int stat(const char *path, struct stat *found) { return passes(path) ? NEXT(stat)(path, found) : -1; }
int lstat(const char *path, struct stat *found) { return passes(path) ? NEXT(lstat)(path, found) : -1; }
int stat64(const char *path, struct stat64 *found) { return passes(path) ? NEXT(stat64)(path, found) : -1; }
int lstat64(const char *path, struct stat64 *found) { return passes(path) ? NEXT(lstat64)(path, found) : -1; }
DIR *opendir(const char *path) { return passes(path) ? NEXT(opendir)(path) : NULL; }
