"""What the system or Python refuses, told as errors of this package: once, where a call of the user's ends."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import wraps
from inspect import Parameter, signature
from pathlib import Path
from typing import Any, NoReturn, ParamSpec, TypeVar

from n4a_fast.errors import StoreError, StoreUnavailableError
from n4a_fast.values import checks

P = ParamSpec("P")
R = TypeVar("R")
Check = Callable[[Any, str], object]

# by what a signature says, which is text: what is looked at before a call, for Python would take something else for it,
# or find it wrong in the middle
_BEFORE: Mapping[str, Check] = {
    "bool": checks.flag,
    "bool | None": checks.optional_flag,
    "str | Path": checks.path,
    "Progress | None": checks.optional_callback,
    "VerifyProgress | None": checks.optional_callback,
    "Callable[[int, int], object] | None": checks.optional_callback,
    "Callable[[str, int, int], object]": checks.callback,
}
_BY_PLACE = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
# and what is looked at when Python has refused something
_CHECKS: Mapping[str, Check] = {
    **_BEFORE,
    "str": checks.text,
    "str | None": checks.optional_text,
    "str | Path | None": checks.path,  # None is no argument that Python refuses
}
OF_ARGUMENTS = (TypeError, ValueError, AttributeError)  # what Python may call a wrong argument


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


def required(method: Callable[..., Any]) -> Callable[[Iterable[Any], Mapping[str, Any]], None]:
    """What looks at the arguments of a method before it is called, but for `self`; InvalidInputError names the first
    that is wrong.
    """
    found = [each for each in signature(method).parameters.values() if each.name not in ("self", "cls")]
    by_name = {each.name: check for each in found if (check := _BEFORE.get(each.annotation)) is not None}
    by_place = [(each.name, by_name.get(each.name)) for each in found if each.kind in _BY_PLACE]

    def require(args: Iterable[Any], kwargs: Mapping[str, Any]) -> None:
        for value, (name, check) in zip(args, by_place, strict=False):  # too many are Python's to refuse
            if check is not None:
                check(value, name)
        for name, value in kwargs.items():
            if name in by_name:
                by_name[name](value, name)

    return require


def checked(method: Callable[P, R]) -> Callable[P, R]:
    """A method whose wrong arguments are told by name."""
    require = required(method)

    @wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        require(args[1:], kwargs)
        try:
            return method(*args, **kwargs)
        except OF_ARGUMENTS as error:
            tell_of_arguments(error, method, args[1:], kwargs)

    return call


def tell_of_arguments(
    error: Exception, method: Callable[..., Any], args: Iterable[Any], kwargs: Mapping[str, Any]
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
