/* Preloaded into a process: every change of files below a folder goes, with its data and in order, to a record.

   Files are known by device and inode, so renames and links need no bookkeeping here. A record is
   kind, length of name, length of other name, unused | device | inode | offset | length of data | names | data.
   Kinds: C created, W written, T truncated to `offset`, S synced, A all synced, N renamed, E exchanged, L linked,
   U unlinked, D folder made, X folder removed, M a mark of the program's own. A change is recorded before it is made
   where it may be torn (W), after it where it names what it made.

   What the program starts is recorded, too, if it says in RECORD_FOLDER and RECORD_FILE what `record_start` was told:
   each change is appended by one write. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

struct head {
    uint32_t kind, name, other, unused;
    uint64_t device, inode, offset, length;
};

static int record = -1;
static char root[PATH_MAX];
static size_t root_length;
static pthread_mutex_t order = PTHREAD_MUTEX_INITIALIZER;

#define REAL(name)                                                                   \
    static __typeof__(&name) real;                                                   \
    if (!real)                                                                       \
    real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

static ssize_t real_write(int fd, const void *data, size_t length) {
    REAL(write);
    return real(fd, data, length);
}

static ssize_t real_writev(int fd, const struct iovec *pieces, int count) {
    REAL(writev);
    return real(fd, pieces, count);
}

static void put(char kind, const struct stat *file, const char *name, const char *other, uint64_t offset,
                const void *data, uint64_t length) {
    struct head head = {(uint32_t)kind, (uint32_t)strlen(name), other ? (uint32_t)strlen(other) : 0, 0,
                        file ? file->st_dev : 0, file ? file->st_ino : 0, offset, length};
    struct iovec pieces[] = {
        {&head, sizeof head}, {(void *)name, head.name}, {(void *)other, head.other}, {(void *)data, length}};
    pthread_mutex_lock(&order);
    if (real_writev(record, pieces, 4) != (ssize_t)(sizeof head + head.name + head.other + length))
        abort();
    pthread_mutex_unlock(&order);
}

static int below(const char *path) {
    return record >= 0 && strncmp(path, root, root_length) == 0 && (path[root_length] == '/' || !path[root_length]);
}

/* The path of an open file, if it is recorded. */
static int opened_below(int fd, char *path, struct stat *file) {
    char link[64];
    if (record < 0 || fd == record)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length <= 0)
        return 0;
    path[length] = 0;
    return below(path) && fstat(fd, file) == 0;
}

static const char *whole(int folder, const char *path, char *buffer) {
    if (path[0] == '/')
        return path;
    char link[64], base[PATH_MAX];
    if (folder == AT_FDCWD)
        snprintf(link, sizeof link, "/proc/self/cwd");
    else
        snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
    ssize_t length = readlink(link, base, sizeof base - 1);
    base[length > 0 ? length : 0] = 0;
    if (snprintf(buffer, PATH_MAX, "%s/%s", base, path) >= PATH_MAX)
        abort();
    return buffer;
}

int record_start(const char *folder, const char *target) {
    REAL(open);
    strncpy(root, folder, sizeof root - 1);
    root_length = strlen(root);
    record = real(target, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    return record >= 0;
}

__attribute__((constructor)) static void go_on_recording(void) {
    const char *folder = getenv("RECORD_FOLDER"), *target = getenv("RECORD_FILE");
    if (folder && target && !record_start(folder, target))
        abort();
}

void record_mark(const char *text) {
    if (record >= 0)
        put('M', NULL, text, NULL, 0, NULL, 0);
}

void record_stop(void) { record = -1; }

static int note_opened(int fd, const char *path, int flags, int existed) {
    struct stat file;
    if (fd >= 0 && below(path) && fstat(fd, &file) == 0 && !S_ISDIR(file.st_mode)) {
        if (!existed)
            put('C', &file, path, NULL, 0, NULL, 0);
        else if (flags & O_TRUNC)
            put('T', &file, path, NULL, 0, NULL, 0);
    }
    return fd;
}

static int exists(const char *path) {
    struct stat file;
    return lstat(path, &file) == 0;
}

#define OPENING(name, folder, call)                                                  \
    REAL(name);                                                                      \
    mode_t mode = 0;                                                                 \
    if (flags & (O_CREAT | O_TMPFILE)) {                                             \
        va_list rest;                                                                \
        va_start(rest, flags);                                                       \
        mode = (mode_t)va_arg(rest, int);                                            \
        va_end(rest);                                                                \
    }                                                                                \
    char buffer[PATH_MAX];                                                           \
    const char *place = whole(folder, path, buffer);                                 \
    int existed = exists(place);                                                     \
    return note_opened(call, place, flags, existed);

int open(const char *path, int flags, ...) { OPENING(open, AT_FDCWD, real(path, flags, mode)) }
int open64(const char *path, int flags, ...) { OPENING(open64, AT_FDCWD, real(path, flags, mode)) }
int openat(int folder, const char *path, int flags, ...) { OPENING(openat, folder, real(folder, path, flags, mode)) }
int openat64(int folder, const char *path, int flags, ...) {
    OPENING(openat64, folder, real(folder, path, flags, mode))
}

static void note_written(int fd, const void *data, size_t length, off_t offset) {
    char path[PATH_MAX];
    struct stat file;
    if (opened_below(fd, path, &file))
        put('W', &file, path, NULL, (uint64_t)offset, data, length);
}

static off_t position(int fd) {
    return fcntl(fd, F_GETFL) & O_APPEND ? lseek(fd, 0, SEEK_END) : lseek(fd, 0, SEEK_CUR);
}

ssize_t write(int fd, const void *data, size_t length) {
    if (record >= 0)
        note_written(fd, data, length, position(fd));
    return real_write(fd, data, length);
}

ssize_t pwrite(int fd, const void *data, size_t length, off_t offset) {
    REAL(pwrite);
    note_written(fd, data, length, offset);
    return real(fd, data, length, offset);
}

ssize_t pwrite64(int fd, const void *data, size_t length, off64_t offset) {
    REAL(pwrite64);
    note_written(fd, data, length, offset);
    return real(fd, data, length, offset);
}

static void note_vector(int fd, const struct iovec *pieces, int count, off_t offset) {
    for (int piece = 0; record >= 0 && piece < count; offset += (off_t)pieces[piece++].iov_len)
        note_written(fd, pieces[piece].iov_base, pieces[piece].iov_len, offset);
}

ssize_t writev(int fd, const struct iovec *pieces, int count) {
    if (record >= 0)
        note_vector(fd, pieces, count, position(fd));
    return real_writev(fd, pieces, count);
}

ssize_t pwritev(int fd, const struct iovec *pieces, int count, off_t offset) {
    REAL(pwritev);
    note_vector(fd, pieces, count, offset);
    return real(fd, pieces, count, offset);
}

/* What the kernel copied is read back from its source. */
static void note_copied(int source, off_t from, int target, off_t to, ssize_t length) {
    if (record < 0 || length <= 0)
        return;
    char *data = malloc((size_t)length);
    if (!data || pread(source, data, (size_t)length, from) != length)
        abort();
    note_written(target, data, (size_t)length, to);
    free(data);
}

ssize_t sendfile(int target, int source, off_t *offset, size_t count) {
    REAL(sendfile);
    off_t from = offset ? *offset : lseek(source, 0, SEEK_CUR), to = lseek(target, 0, SEEK_CUR);
    ssize_t length = real(target, source, offset, count);
    note_copied(source, from, target, to, length);
    return length;
}

ssize_t sendfile64(int target, int source, off64_t *offset, size_t count) {
    REAL(sendfile64);
    off_t from = offset ? *offset : lseek(source, 0, SEEK_CUR), to = lseek(target, 0, SEEK_CUR);
    ssize_t length = real(target, source, offset, count);
    note_copied(source, from, target, to, length);
    return length;
}

ssize_t copy_file_range(int source, off64_t *from, int target, off64_t *to, size_t count, unsigned flags) {
    REAL(copy_file_range);
    off_t begin = from ? *from : lseek(source, 0, SEEK_CUR), end = to ? *to : lseek(target, 0, SEEK_CUR);
    ssize_t length = real(source, from, target, to, count, flags);
    note_copied(source, begin, target, end, length);
    return length;
}

static void note_state(char kind, int fd, uint64_t offset) {
    char path[PATH_MAX];
    struct stat file;
    if (opened_below(fd, path, &file))
        put(kind, &file, path, NULL, offset, NULL, 0);
}

#define SYNCING(name, kind)                                                          \
    int name(int fd) {                                                               \
        REAL(name);                                                                  \
        int failed = real(fd);                                                       \
        if (!failed)                                                                 \
            note_state(kind, fd, 0);                                                 \
        return failed;                                                               \
    }

SYNCING(fsync, 'S')
SYNCING(fdatasync, 'S')
SYNCING(syncfs, 'A')

#define TRUNCATING(name, type)                                                       \
    int name(int fd, type length) {                                                  \
        REAL(name);                                                                  \
        int failed = real(fd, length);                                               \
        if (!failed)                                                                 \
            note_state('T', fd, (uint64_t)length);                                   \
        return failed;                                                               \
    }

TRUNCATING(ftruncate, off_t)
TRUNCATING(ftruncate64, off64_t)

static int note_named(int failed, char kind, const char *name, const char *other) {
    if (!failed && (below(name) || (other && below(other)))) {
        struct stat file;
        put(kind, lstat(other ? other : name, &file) == 0 ? &file : NULL, name, other, 0, NULL, 0);
    }
    return failed;
}

#define TWO_NAMES(first_folder, second_folder)                                       \
    char first[PATH_MAX], second[PATH_MAX];                                          \
    const char *from = whole(first_folder, old, first), *to = whole(second_folder, new, second);

int rename(const char *old, const char *new) {
    REAL(rename);
    TWO_NAMES(AT_FDCWD, AT_FDCWD)
    return note_named(real(old, new), 'N', from, to);
}

int renameat(int a, const char *old, int b, const char *new) {
    REAL(renameat);
    TWO_NAMES(a, b)
    return note_named(real(a, old, b, new), 'N', from, to);
}

int renameat2(int a, const char *old, int b, const char *new, unsigned flags) {
    REAL(renameat2);
    TWO_NAMES(a, b)
    return note_named(real(a, old, b, new, flags), flags & RENAME_EXCHANGE ? 'E' : 'N', from, to);
}

int link(const char *old, const char *new) {
    REAL(link);
    TWO_NAMES(AT_FDCWD, AT_FDCWD)
    return note_named(real(old, new), 'L', from, to);
}

int linkat(int a, const char *old, int b, const char *new, int flags) {
    REAL(linkat);
    TWO_NAMES(a, b)
    return note_named(real(a, old, b, new, flags), 'L', from, to);
}

#define ONE_NAME(folder)                                                             \
    char buffer[PATH_MAX];                                                           \
    const char *name = whole(folder, path, buffer);

int unlink(const char *path) {
    REAL(unlink);
    ONE_NAME(AT_FDCWD)
    return note_named(real(path), 'U', name, NULL);
}

int remove(const char *path) {
    REAL(remove);
    ONE_NAME(AT_FDCWD)
    return note_named(real(path), 'U', name, NULL);
}

int unlinkat(int folder, const char *path, int flags) {
    REAL(unlinkat);
    ONE_NAME(folder)
    return note_named(real(folder, path, flags), flags & AT_REMOVEDIR ? 'X' : 'U', name, NULL);
}

int mkdir(const char *path, mode_t mode) {
    REAL(mkdir);
    ONE_NAME(AT_FDCWD)
    return note_named(real(path, mode), 'D', name, NULL);
}

int mkdirat(int folder, const char *path, mode_t mode) {
    REAL(mkdirat);
    ONE_NAME(folder)
    return note_named(real(folder, path, mode), 'D', name, NULL);
}

int rmdir(const char *path) {
    REAL(rmdir);
    ONE_NAME(AT_FDCWD)
    return note_named(real(path), 'X', name, NULL);
}
