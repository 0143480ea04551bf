"""Calls of Windows' kernel that Python does not make, on file descriptors; errors are OSErrors with Windows' number.

What is opened here may be read, written, renamed and deleted by others meanwhile. `os.open` and `open` let nobody
rename or delete the file.
"""

from __future__ import annotations

import ctypes
import msvcrt
from collections.abc import Callable
from ctypes import wintypes
from typing import Any

SHARED, UNSHARED, SHARED_FOR_READING = 7, 0, 1
READ, WRITE = 0x8000_0000, 0x4000_0000
CREATE_NEW, CREATE_ALWAYS, OPEN_EXISTING, OPEN_ALWAYS, TRUNCATE_EXISTING = 1, 2, 3, 4, 5
IN_USE, LOCKED, PENDING, NOT_LOCKED, END_OF_FILE, DENIED = 32, 33, 997, 158, 38, 5
NOT_SUPPORTED = frozenset({1, 50, 120})

_NORMAL, _NOT_THROUGH_LINKS = 0x80, 0x0020_0000
_REPLACE, _WRITE_THROUGH = 1, 8
_AT_ONCE, _EXCLUSIVE = 1, 2
_LARGEST = 1 << 30  # bytes of one call
# One byte far behind any content: locked bytes can be neither read nor written by others.
_LOCK_BYTE = (1 << 62) - 16


class _Overlapped(ctypes.Structure):
    _fields_ = (
        ("internal", ctypes.c_void_p),
        ("internal_high", ctypes.c_void_p),
        ("offset", wintypes.DWORD),
        ("offset_high", wintypes.DWORD),
        ("event", wintypes.HANDLE),
    )


# types are checked on systems that have not got these
_kernel: Any = ctypes.WinDLL("kernel32", use_last_error=True)  # type: ignore[attr-defined, unused-ignore]
_last_error: Callable[[], int] = ctypes.get_last_error  # type: ignore[attr-defined, unused-ignore]
_text_of: Callable[[int], str] = ctypes.FormatError  # type: ignore[attr-defined, unused-ignore]
_descriptor: Callable[[int, int], int] = msvcrt.open_osfhandle  # type: ignore[attr-defined, unused-ignore]
_handle: Callable[[int], int] = msvcrt.get_osfhandle  # type: ignore[attr-defined, unused-ignore]
_kernel.CreateFileW.restype = wintypes.HANDLE
_kernel.CreateFileW.argtypes = (
    *(wintypes.LPCWSTR, wintypes.DWORD, wintypes.DWORD, ctypes.c_void_p),
    *(wintypes.DWORD, wintypes.DWORD, wintypes.HANDLE),
)
_TRANSFER = (
    *(wintypes.HANDLE, ctypes.c_void_p, wintypes.DWORD),
    *(ctypes.POINTER(wintypes.DWORD), ctypes.POINTER(_Overlapped)),
)
_kernel.ReadFile.argtypes = _kernel.WriteFile.argtypes = _TRANSFER
_kernel.LockFileEx.argtypes = (
    *(wintypes.HANDLE, wintypes.DWORD, wintypes.DWORD, wintypes.DWORD, wintypes.DWORD),
    ctypes.POINTER(_Overlapped),
)
_kernel.UnlockFileEx.argtypes = (
    *(wintypes.HANDLE, wintypes.DWORD, wintypes.DWORD, wintypes.DWORD),
    ctypes.POINTER(_Overlapped),
)
_kernel.MoveFileExW.argtypes = (wintypes.LPCWSTR, wintypes.LPCWSTR, wintypes.DWORD)
_INVALID = wintypes.HANDLE(-1).value


def open_file(path: str, access: int, disposition: int, flags: int, shared: int = SHARED) -> int:
    """A descriptor of the file itself, not of what a link points to; it is not inherited. `flags` are those of
    `os.open` that its reads and writes are to know.
    """
    handle = _kernel.CreateFileW(path, access, shared, None, disposition, _NORMAL | _NOT_THROUGH_LINKS, None)
    if handle in (None, _INVALID):
        raise _error(path)
    return _descriptor(handle, flags)


def read_at(descriptor: int, size: int, offset: int) -> bytes:
    """Up to `size` bytes from `offset` on; none behind the end."""
    buffer, done = ctypes.create_string_buffer(min(size, _LARGEST)), wintypes.DWORD()
    place = _at(offset)
    if not _kernel.ReadFile(_handle(descriptor), buffer, len(buffer), ctypes.byref(done), ctypes.byref(place)):
        if _last_error() == END_OF_FILE:
            return b""
        raise _error()
    return buffer.raw[: done.value]


def write_at(descriptor: int, data: bytes | bytearray | memoryview, offset: int) -> int:
    """How many bytes were written."""
    part, done, place = bytes(data[:_LARGEST]), wintypes.DWORD(), _at(offset)
    if not _kernel.WriteFile(_handle(descriptor), part, len(part), ctypes.byref(done), ctypes.byref(place)):
        raise _error()
    return done.value


def lock(descriptor: int, *, shared: bool, waits: bool) -> bool:
    """Whether the lock of this file is this descriptor's now; waiters are served in their order."""
    flags = (0 if shared else _EXCLUSIVE) | (0 if waits else _AT_ONCE)
    if _kernel.LockFileEx(_handle(descriptor), flags, 0, 1, 0, ctypes.byref(_at(_LOCK_BYTE))):
        return True
    if _last_error() in (LOCKED, PENDING):
        return False
    raise _error()


def unlock(descriptor: int) -> None:
    """Let go of the lock, if it is held."""
    held = _kernel.UnlockFileEx(_handle(descriptor), 0, 1, 0, ctypes.byref(_at(_LOCK_BYTE)))
    if not held and _last_error() != NOT_LOCKED:
        raise _error()


def move(path: str, target: str, *, replaces: bool) -> None:
    """Rename, and return when the disk has it."""
    if not _kernel.MoveFileExW(path, target, _WRITE_THROUGH | (_REPLACE if replaces else 0)):
        raise _error(path, target)


def _at(offset: int) -> _Overlapped:
    return _Overlapped(None, None, offset & 0xFFFF_FFFF, offset >> 32, None)


def _error(path: str | None = None, target: str | None = None) -> OSError:
    """Python finds `errno` and the class by Windows' number."""
    code = _last_error()
    return OSError(None, _text_of(code).strip(), path, code, target)
