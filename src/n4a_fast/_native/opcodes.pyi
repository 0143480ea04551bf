"""Which globals a pickle names and what it would do with them, told without making anything of it."""

__all__ = ["scan"]

def scan(data: bytes | memoryview, limit: int) -> tuple[dict[tuple[str, str], int], tuple[str, str] | None]:
    """The globals of a pickle as module and name, each with its uses, and the one that made the object in it, None for
    plain data.

    Uses are flags: 1 called with arguments, 4 made with arguments by its `__new__`, 8 changed itself (or its result
    called), 16 filled with items by its own methods; 0 for one that is only passed along or made empty and given its
    state. `limit` bounds the memory of the walk in bytes. Raises ValueError, with the reason, for what is no whole
    pickle.
    """
