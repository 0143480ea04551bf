/* A disk that refuses, a process that dies within a file operation, a wall clock that is stepped: preloaded.
 *
 * Nothing happens before a program calls one of
 *   crash_refuse(folder, seed, permille, burst)  each operation below `folder` fails with this probability, and after
 *                                                one that did the next `burst` fail, too; permille 0 ends it
 *   crash_die(folder, operations)                SIGKILL within that operation below `folder`, counted from now;
 *                                                a write is cut first
 *   crash_fail(folder, number, error, lasting)   that operation below `folder` fails with this errno, counted from now, and
 *                                                if `lasting` all that follow; number 0 ends it
 *   crash_operations()                           how many there were below the folder since the last of these calls
 *   crash_step(seconds)                          what CLOCK_REALTIME shows is that much later from now on
 * Which operations fail depends on the seed and on their number alone. A write that is refused is short first, at times.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static char watched[PATH_MAX];
static size_t watched_length;
static atomic_ulong operation; /* below the watched folder, since the last call of crash_refuse or crash_die */
static atomic_ulong refused;
static uint64_t seed;
static unsigned permille, burst;
static atomic_ulong refuse_until;
static unsigned long dies_at, fails_at;
static int fails_with, fails_on;
static atomic_long stepped; /* nanoseconds */

static void watch(const char *folder) {
    watched_length = 0;
    strncpy(watched, folder, sizeof watched - 1);
    watched_length = strlen(watched);
    atomic_store(&operation, 0);
}

void crash_refuse(const char *folder, uint64_t with_seed, unsigned of_thousand, unsigned in_a_row) {
    permille = 0;
    watch(folder);
    seed = with_seed, burst = in_a_row;
    atomic_store(&refuse_until, 0);
    permille = of_thousand;
}

void crash_die(const char *folder, unsigned long operations) {
    dies_at = 0;
    watch(folder);
    dies_at = operations;
}

void crash_fail(const char *folder, unsigned long number, int error, int lasting) {
    fails_at = 0;
    watch(folder);
    atomic_store(&refused, 0);
    fails_with = error, fails_on = lasting;
    fails_at = number;
}

void crash_step(double seconds) { atomic_fetch_add(&stepped, (long)(seconds * 1e9)); }

unsigned long crash_refused(void) { return atomic_load(&refused); }

unsigned long crash_operations(void) { return atomic_load(&operation); }

static uint64_t mixed(uint64_t x) { /* splitmix64 */
    x += 0x9e3779b97f4a7c15ull;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

static int is_watched(const char *path) {
    if (!watched_length || (!permille && !dies_at && !fails_at) || !path) return 0;
    return !strncmp(path, watched, watched_length);
}

static int is_watched_fd(int fd) {
    if (!watched_length || (!permille && !dies_at && !fails_at)) return 0;
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    int saved = errno;
    ssize_t length = readlink(link, path, sizeof path - 1);
    errno = saved;
    if (length < 0) return 0;
    path[length] = 0;
    return is_watched(path);
}

static int is_watched_at(int folder, const char *path) {
    return path && (path[0] == '/' || folder == AT_FDCWD ? is_watched(path) : is_watched_fd(folder));
}

enum fate { GOES, FAILS, DIES };

/* What becomes of the next operation; errno for one that fails: `full` says that it needs room on the disk. */
static enum fate fate_of(int full, uint64_t *chance) {
    unsigned long number = atomic_fetch_add(&operation, 1) + 1;
    *chance = mixed(seed ^ mixed(number));
    if (dies_at && number == dies_at) return DIES;
    if (fails_at && (number == fails_at || (fails_on && number > fails_at))) {
        atomic_fetch_add(&refused, 1);
        errno = fails_with;
        return FAILS;
    }
    if (!permille) return GOES;
    if (number >= atomic_load(&refuse_until)) {
        if (*chance % 1000 >= permille) return GOES;
        atomic_store(&refuse_until, number + (burst ? mixed(*chance) % (burst + 1) : 0) + 1);
    }
    atomic_fetch_add(&refused, 1);
    errno = full && (seed & 1) ? ENOSPC : EIO; /* a disk is full, or it is broken, all the time */
    return FAILS;
}

static void die(void) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

static int passes(int watched_here, int full) {
    uint64_t chance;
    if (!watched_here) return 1;
    switch (fate_of(full, &chance)) {
        case GOES: return 1;
        case FAILS: return 0;
        default: die(); return 0;
    }
}

/* How much of a write of `size` bytes is done: all of it, or -1 with errno, or less before the process dies or fails. */
static int write_fate(int fd, size_t size, size_t *part) {
    uint64_t chance;
    *part = size;
    if (!is_watched_fd(fd)) return GOES;
    enum fate fate = fate_of(1, &chance);
    if (fate == DIES || (fate == FAILS && (chance >> 20) % 3 == 0))
        *part = size ? (size_t)((chance >> 24) % size) : 0;
    else if (fate == FAILS)
        *part = 0;
    return fate;
}

#define WRITES(call, size)                       \
    size_t part;                                 \
    int fate = write_fate(fd, size, &part);      \
    int told = errno;                            \
    if (fate == GOES) return call(size);         \
    ssize_t done = part ? call(part) : 0;        \
    if (fate == DIES) die();                     \
    if (done > 0) return done; /* a short write */ \
    errno = told;                                \
    return -1;

ssize_t write(int fd, const void *data, size_t size) {
#define CALL(n) NEXT(write)(fd, data, n)
    WRITES(CALL, size)
#undef CALL
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) {
#define CALL(n) NEXT(pwrite)(fd, data, n, offset)
    WRITES(CALL, size)
#undef CALL
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) {
#define CALL(n) NEXT(pwrite64)(fd, data, n, offset)
    WRITES(CALL, size)
#undef CALL
}

ssize_t copy_file_range(int source, off64_t *from, int fd, off64_t *to, size_t size, unsigned flags) {
#define CALL(n) NEXT(copy_file_range)(source, from, fd, to, n, flags)
    WRITES(CALL, size)
#undef CALL
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    return passes(is_watched_fd(fd), 1) ? NEXT(writev)(fd, parts, count) : -1;
}

static int creates(int flags) { return (flags & O_CREAT) != 0; }

#define OPENS(name)                                                     \
    int name(const char *path, int flags, ...) {                        \
        mode_t mode = 0;                                                \
        if (flags & (O_CREAT | O_TMPFILE)) {                            \
            va_list rest;                                               \
            va_start(rest, flags);                                      \
            mode = va_arg(rest, mode_t);                                \
            va_end(rest);                                               \
        }                                                               \
        if (!passes(is_watched(path), creates(flags))) return -1;       \
        return NEXT(name)(path, flags, mode);                           \
    }
OPENS(open)
OPENS(open64)

#define OPENS_AT(name)                                                          \
    int name(int folder, const char *path, int flags, ...) {                    \
        mode_t mode = 0;                                                        \
        if (flags & (O_CREAT | O_TMPFILE)) {                                    \
            va_list rest;                                                       \
            va_start(rest, flags);                                              \
            mode = va_arg(rest, mode_t);                                        \
            va_end(rest);                                                       \
        }                                                                       \
        if (!passes(is_watched_at(folder, path), creates(flags))) return -1;    \
        return NEXT(name)(folder, path, flags, mode);                           \
    }
OPENS_AT(openat)
OPENS_AT(openat64)

int fsync(int fd) { return passes(is_watched_fd(fd), 0) ? NEXT(fsync)(fd) : -1; }
int fdatasync(int fd) { return passes(is_watched_fd(fd), 0) ? NEXT(fdatasync)(fd) : -1; }
int syncfs(int fd) { return passes(is_watched_fd(fd), 0) ? NEXT(syncfs)(fd) : -1; }
int ftruncate(int fd, off_t size) { return passes(is_watched_fd(fd), 1) ? NEXT(ftruncate)(fd, size) : -1; }
int ftruncate64(int fd, off64_t size) { return passes(is_watched_fd(fd), 1) ? NEXT(ftruncate64)(fd, size) : -1; }
int mkdir(const char *path, mode_t mode) { return passes(is_watched(path), 1) ? NEXT(mkdir)(path, mode) : -1; }
int mkdirat(int folder, const char *path, mode_t mode) {
    return passes(is_watched_at(folder, path), 1) ? NEXT(mkdirat)(folder, path, mode) : -1;
}
int unlink(const char *path) { return passes(is_watched(path), 0) ? NEXT(unlink)(path) : -1; }
int unlinkat(int folder, const char *path, int flags) {
    return passes(is_watched_at(folder, path), 0) ? NEXT(unlinkat)(folder, path, flags) : -1;
}
int rename(const char *from, const char *to) { return passes(is_watched(to), 1) ? NEXT(rename)(from, to) : -1; }
int renameat(int a, const char *from, int b, const char *to) {
    return passes(is_watched_at(b, to), 1) ? NEXT(renameat)(a, from, b, to) : -1;
}
int renameat2(int a, const char *from, int b, const char *to, unsigned flags) {
    return passes(is_watched_at(b, to), 1) ? NEXT(renameat2)(a, from, b, to, flags) : -1;
}
int link(const char *from, const char *to) { return passes(is_watched(to), 1) ? NEXT(link)(from, to) : -1; }
int linkat(int a, const char *from, int b, const char *to, int flags) {
    return passes(is_watched_at(b, to), 1) ? NEXT(linkat)(a, from, b, to, flags) : -1;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = NEXT(clock_gettime)(clock, now);
    long step = atomic_load(&stepped);
    if (!result && clock == CLOCK_REALTIME && step) {
        int64_t sum = (int64_t)now->tv_sec * 1000000000 + now->tv_nsec + step;
        now->tv_sec = sum / 1000000000, now->tv_nsec = sum % 1000000000;
    }
    return result;
}

int gettimeofday(struct timeval *now, void *zone) {
    struct timespec exact;
    (void)zone;
    int result = clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec, now->tv_usec = exact.tv_nsec / 1000;
    return result;
}

time_t time(time_t *out) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (out) *out = exact.tv_sec;
    return exact.tv_sec;
}
