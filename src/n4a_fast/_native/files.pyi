"""SHA-256 of open files, then a sync of their file system, with the GIL let go once."""

__all__ = ["sha256_then_sync"]

def sha256_then_sync(
    files: list[tuple[int, int]], digest: int, kind: int, witness: int
) -> tuple[list[str | None], int]:
    """SHA-256 in hex of files given by descriptor and size, None for one that cannot be read or has another size; the
    errno of the sync, 0 for none.

    `digest` and `kind` are the addresses of OpenSSL's `EVP_Digest` and of its SHA-256. `witness` is a descriptor on the
    file system that is synced once all files are read, -1 for no sync. Raises MemoryError.
    """
