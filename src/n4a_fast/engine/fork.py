"""What must be told of a fork, and when: before it, and after it in the parent and in the child."""

from __future__ import annotations

from typing import Protocol

from n4a_fast.engine.living import Living
from n4a_fast.platform import at_fork


class Forkable(Protocol):
    """Something that holds threads, locks or descriptors which a forked child must not use."""

    def let_go_before_fork(self) -> None: ...
    def go_on_after_fork(self) -> None: ...
    def forget_after_fork(self) -> None: ...


def tell_of_forks(listener: Forkable) -> None:
    """Call `listener` around every fork from now on, for as long as it lives."""
    _LISTENERS.add(listener)


def _before() -> None:
    for listener in _LISTENERS:
        listener.let_go_before_fork()


def _in_parent() -> None:
    for listener in _LISTENERS:
        listener.go_on_after_fork()


def _in_child() -> None:
    for listener in _LISTENERS:
        listener.forget_after_fork()


_LISTENERS = Living[Forkable]()  # for the fork handlers alone
at_fork(before=_before, in_parent=_in_parent, in_child=_in_child)
