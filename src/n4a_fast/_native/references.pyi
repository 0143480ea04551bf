"""What can be reached from an object, without calling anything of it."""

from collections.abc import Callable

__all__ = ["reachable"]

def reachable(root: object, kind_of: Callable[[type], int]) -> list[object]:
    """Every object of a wanted class that can be reached from `root`, once.

    `kind_of` says by flags what is done with objects of a class: 0 passed by, 1 looked into, 2 wanted, 4 a numpy array
    that may hold objects. It is asked once for each class.
    """
