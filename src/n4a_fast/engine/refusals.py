"""What the system or Python refuses, told as errors of this package: once, where a call of the user's ends."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from inspect import signature
from pathlib import Path
from typing import Any, NoReturn

from n4a_fast.errors import StoreError, StoreUnavailableError
from n4a_fast.values import checks

# by what a signature says, which is text
_CHECKS: Mapping[str, Callable[[Any, str], object]] = {
    "bool": checks.flag,
    "str": checks.text,
    "str | None": checks.optional_text,
    "str | Path": checks.path,
    "str | Path | None": checks.path,  # None is no argument that Python refuses
}


@contextmanager
def told(path: Path) -> Iterator[None]:
    """An OSError of the block becomes a StoreUnavailableError about the file that it names, or about `path`."""
    try:
        yield
    except OSError as error:
        tell(error, path)


@contextmanager
def told_of_ends(path: Path, around: AbstractContextManager[object]) -> Iterator[None]:
    """The block inside `around`; what the block raises is the caller's own, what `around` raises is told."""
    of_block: BaseException | None = None
    try:
        with around:
            try:
                yield
            except BaseException as error:
                of_block = error
                raise
    except OSError as error:
        if error is of_block:
            raise
        tell(error, path)


def tell_of_arguments(
    error: TypeError | ValueError, method: Callable[..., Any], args: Iterable[Any], kwargs: Mapping[str, Any]
) -> NoReturn:
    """Raise what an id that is no text, which Python calls unhashable, a path or a truth value that is none is called
    outside; of any other, the error itself.
    """
    if isinstance(error, StoreError):
        raise error
    call = signature(method)
    with suppress(TypeError):  # arguments that the method does not have
        for name, value in call.bind(None, *args, **kwargs).arguments.items():
            if name.endswith("_id"):
                checks.optional_text(value, name)
            elif (check := _CHECKS.get(call.parameters[name].annotation)) is not None:
                check(value, name)
    raise error


def tell(error: OSError, path: Path) -> NoReturn:
    """Raise what a refused file operation is called outside: the file, its cause, and what to do about that."""
    if isinstance(error, StoreError | ConnectionError):  # the latter come from callbacks, not files
        raise error
    named = Path(str(error.filename)) if isinstance(error.filename, str | Path) else path
    raise StoreUnavailableError(named, error.strerror or str(error)) from error
