# cython: language_level=3, binding=False, embedsignature=True, embedsignature.format=clinic
"""fsync of many files in one call that gives up the GIL once.

Owns nothing: each descriptor is opened, synced and closed in turn. Leaves to others which files, and in how many threads.

(a) A thread that syncs file by file from Python needs the GIL after each of them, and waits up to 5 ms for it while another
    computes: beside a busy main thread 17 files took as long as if they had been begun when they were waited for.
"""

from libc.errno cimport errno
from libc.stdlib cimport free, malloc

cdef extern from "<fcntl.h>" nogil:
    enum:
        O_RDONLY
        O_CLOEXEC
    int open(const char *path, int flags)

cdef extern from "<unistd.h>" nogil:
    int close(int descriptor)
    int fsync(int descriptor)

__all__ = ["sync"]


def sync(list paths):
    """fsync each file or folder; the errno of each, 0 for those that now survive a power loss."""
    cdef Py_ssize_t count = len(paths), index
    cdef const char **names = <const char **>malloc(count * sizeof(char *))
    cdef int *errors = <int *>malloc(count * sizeof(int))
    try:
        if count and (names == NULL or errors == NULL):
            raise MemoryError
        for index in range(count):
            names[index] = paths[index]
        with nogil:
            for index in range(count):
                errors[index] = _sync(names[index])
        return [errors[index] for index in range(count)]
    finally:
        free(names)
        free(errors)


cdef int _sync(const char *path) noexcept nogil:
    cdef int descriptor = open(path, O_RDONLY | O_CLOEXEC)
    if descriptor < 0:
        return errno
    cdef int error = errno if fsync(descriptor) < 0 else 0
    close(descriptor)
    return error
