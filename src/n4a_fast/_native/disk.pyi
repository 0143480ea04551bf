"""fsync of many files in one call that gives up the GIL once."""

__all__ = ["sync"]

def sync(paths: list[bytes]) -> list[int]:
    """fsync each file or folder; the errno of each, 0 for those that now survive a power loss."""
