"""Natural keys and ids of predictions: the arithmetic of `n4a_fast.values.ids` on 64-bit integers."""

__all__ = ["ids_of_keys", "key_and_id"]

def ids_of_keys(high: object, low: object) -> bytes:
    """The ids of natural keys, one after the other; these are given by their halves, buffers of 64-bit integers in
    native byte order.

    Raises ValueError for buffers of different lengths.
    """

def key_and_id(
    prefix: int, chain: tuple[int, int], place: tuple[int, ...], factors: tuple[int, int]
) -> tuple[int, str, int, int]:
    """Natural key, prediction id, `nk` and `id_key`: from the time prefix, the two lanes of the chain, and those of
    three more parts.

    Raises OverflowError for numbers beyond 64 bits, IndexError for tuples that are too short.
    """
