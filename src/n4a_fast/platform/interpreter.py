"""What only the interpreter's own memory tells: reached through ctypes, here and nowhere else."""

from __future__ import annotations

import ctypes


def keep_for_ever(value: object) -> None:
    """Never run the end of this object, not even when the interpreter ends."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(value))


def openssl_sha256() -> tuple[int, int]:
    """Addresses of the function that `hashlib` calls, and of its SHA-256; zeros where there are none."""
    try:
        import _hashlib

        library = ctypes.CDLL(_hashlib.__file__)
        library.EVP_sha256.restype = ctypes.c_void_p
        return ctypes.cast(library.EVP_Digest, ctypes.c_void_p).value or 0, library.EVP_sha256()
    except (ImportError, AttributeError, OSError):
        return 0, 0
