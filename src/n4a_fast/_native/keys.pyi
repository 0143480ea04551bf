"""The natural key and the id of one prediction: the arithmetic of `n4a_fast.values.ids` on 64-bit integers."""

__all__ = ["key_and_id"]

def key_and_id(
    prefix: int, chain: tuple[int, int], place: tuple[int, ...], factors: tuple[int, int]
) -> tuple[int, str, int, int]:
    """Natural key, prediction id, `nk` and `id_key`: from the time prefix, the two lanes of the chain, and those of
    three more parts.

    Raises OverflowError for numbers beyond 64 bits, IndexError for tuples that are too short.
    """
