"""The command line's frame: the app, what every command promises, and the exit codes.

0 done, also when there is nothing to show; 1 refused or failed; 2 wrong usage, or a package is missing; 3 problems were
found and nothing was changed; 10 there is no workspace; 11 another process holds it; 130 interrupted; 141 nobody reads
the output any more. Data go to stdout, everything else to stderr. Nothing heavy is imported here: `--version`, `--help`
and completion must be quick.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, ParamSpec

import typer
from typer.core import TyperCommand, TyperGroup

from n4a_fast.values.texttable import plain_lines

if TYPE_CHECKING:
    from n4a_fast.store import WorkspaceStore

REFUSED, USAGE, FOUND, NO_WORKSPACE, LOCKED, INTERRUPTED, CLOSED_PIPE = 1, 2, 3, 10, 11, 130, 141
STORE_FILES = ("store.duckdb", "store.sqlite")
ENVIRONMENT = ("N4A_FAST_WORKSPACE", "NIRS4ALL_WORKSPACE")
_NEWEST = "SELECT run_id, name FROM runs ORDER BY created_at DESC, run_id DESC LIMIT 50"  # for completion

P = ParamSpec("P")


class _QuicklyCompleted:
    """Of a command: while the shell completes, what was typed stays text. Typer would import pydantic to read it."""

    def get_params(self, context: Any) -> list[Any]:
        found: list[Any] = super().get_params(context)  # type: ignore[misc]
        for parameter in found if context.resilient_parsing else ():
            parameter.process_value = _as_typed
        return found


def _as_typed(_context: Any, value: Any) -> Any:
    return value


class _Group(_QuicklyCompleted, TyperGroup): ...


class _Command(_QuicklyCompleted, TyperCommand):
    """A command with one argument for all of its words, whose metavar says which these are."""

    def collect_usage_pieces(self, _context: Any) -> list[str]:
        words = [each.metavar or str(each.name).upper() for each in self.params if each.param_type_name == "argument"]
        return ["[OPTIONS]", *words]


class _Application(typer.Typer):
    """Typer makes all commands before it runs one; here it makes the one that was typed, where that is known."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        with self.only(args[0] if args else _completed_words() or sys.argv[1:]):
            return super().__call__(*args, **options)

    @contextmanager
    def only(self, typed: Sequence[str]) -> Iterator[None]:
        """Of all commands the block makes the one that was typed, where that is known."""
        all_of_them = self.registered_commands
        known = [each for each in all_of_them if typed and each.name == typed[0]]
        try:
            self.registered_commands = known or all_of_them
            yield
        finally:
            self.registered_commands = all_of_them


def _completed_words() -> list[str]:
    """The words before the one that the shell completes; none of them may be the command yet."""
    words = os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS") or ""
    return words.split()[1:] if len(words.split(" ")) > 2 else []


app = _Application(
    name="n4a-fast",
    cls=_Group,
    help="Look into n4a_fast workspaces, predict with what they hold, and try the package on real spectra.",
    epilog="Exit codes: 0 done, 1 refused, 2 usage, 3 problems found, 10 no workspace, 11 locked, 130 interrupted.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def command(name: str, example: str) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """Register a command whose errors become one line on stderr; its help ends with `example`."""

    def register(function: Callable[P, None]) -> Callable[P, None]:
        @wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> None:
            with told_errors():
                function(*args, **kwargs)

        app.command(name, cls=_Command, epilog=f"Example: n4a-fast {example}")(run)
        return run

    return register


@contextmanager
def told_errors() -> Iterator[None]:
    """Errors as one line on stderr and an exit code."""
    from n4a_fast.errors import StoreError

    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        # what is still buffered would raise again as the interpreter ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(CLOSED_PIPE) from None
    except KeyboardInterrupt:
        stop("interrupted", INTERRUPTED)
    except StoreError as error:
        stop(str(error), _code_of(error))


def stop(message: str, code: int = REFUSED) -> NoReturn:
    """End the program with one line on stderr."""
    say(f"n4a-fast: {' '.join(message.split())}")
    raise typer.Exit(code)


def say(message: str) -> None:
    """A line that is not data, on stderr."""
    typer.echo(readable(message, sys.stderr), err=True)


def readable(text: str, stream: Any) -> str:
    """The text in characters that a stream can write, none of which moves a terminal's cursor or changes colours."""
    text = plain_lines(text)
    encoding = getattr(stream, "encoding", None) or "utf-8"
    if encoding.lower().replace("-", "") != "utf8":
        for sign, plain in (("±", "+/-"), ("…", "~"), ("·", "-"), ("→", "->")):
            text = text.replace(sign, plain)
    return text.encode(encoding, "replace").decode(encoding)


def _code_of(error: Exception) -> int:
    from n4a_fast.errors import NotFoundError, StoreLockedError

    if isinstance(error, StoreLockedError):
        return LOCKED
    return (
        NO_WORKSPACE
        if isinstance(error, NotFoundError) and error.kind in ("store file", "workspace", "backup")
        else REFUSED
    )


# -- which workspace ---------------------------------------------------------------------------


def complete_things(context: typer.Context, incomplete: str) -> list[str]:
    """Short ids and names of the newest runs in the tables, for the shell; nothing when they cannot be read at once."""
    from n4a_fast.engine.glimpse import rows_at_once

    try:
        option = context.params.get("option")
        place, _ = split(list(context.params.get("things") or []), Path(option) if option else None)
        rows = rows_at_once(place / STORE_FILES[0], _NEWEST, timeout=0.3)
    except (Exception, SystemExit, typer.Exit):
        return []
    return [text for run_id, name in rows for text in (run_id[-8:], name) if text.startswith(incomplete)]


def words(metavar: str, help: str, complete: Callable[..., list[str]] | None = None) -> Any:
    """The words of a command: the workspace, unless it is given otherwise, and what `help` tells of."""
    told = f"The workspace, unless it is given otherwise, and {help}."
    return typer.Argument(help=told, metavar=f"[WS] {metavar}", autocompletion=complete, show_default=False)


def ids(metavar: str, help: str) -> Any:
    """Words of which some are ids, or stand for them; the shell completes these."""
    return words(metavar, f"{help}: ids, their ends, names, @best, @last", complete_things)


Things = Annotated[list[str] | None, ids("[ID]...", "what is meant")]
OneRun = Annotated[list[str] | None, ids("[RUN]", "a run, the newest one without")]
OneWorkspace = Annotated[
    Path | None,
    typer.Argument(help="Workspace folder, or the store.duckdb in it.", metavar="[WS]", show_default=False),
]
WorkspaceOption = Annotated[
    Path | None,
    typer.Option(
        "--workspace", "-w", help="Workspace folder, or the store.duckdb in it.", envvar=list(ENVIRONMENT), metavar="WS"
    ),
]


def split(things: list[str] | None, workspace: Path | None) -> tuple[Path, list[str]]:
    """The workspace, and what else was named: the first of `things` is the workspace when it is a folder."""
    rest = list(things or [])
    if rest and (Path(rest[0]).is_dir() or Path(rest[0]).name in STORE_FILES):
        return folder(Path(rest[0])), rest[1:]
    if workspace is not None:
        return folder(workspace), rest
    if rest:
        stop(
            f"no workspace {rest[0]!r}; check the path, or name it with --workspace or ${ENVIRONMENT[0]}", NO_WORKSPACE
        )
    stop(f"which workspace? give its folder, --workspace, or ${ENVIRONMENT[0]}", USAGE)


def one(workspace: Path | None, option: Path | None) -> Path:
    """The workspace of a command that takes nothing else."""
    place = workspace or option
    if place is None:
        stop(f"which workspace? give its folder, --workspace, or ${ENVIRONMENT[0]}", USAGE)
    return folder(place)


def folder(path: Path) -> Path:
    """The folder of a workspace that is named by its folder or by its file."""
    return path.parent if path.name == STORE_FILES[0] else path


def reading(place: Path) -> WorkspaceStore:
    """The workspace, for reading, whoever else writes to it."""
    from n4a_fast.store import WorkspaceStore as Store

    return Store.open_readonly(place, lock_timeout=_patience())


def writing(place: Path) -> WorkspaceStore:
    """The workspace, for writing; one that is not there is not created."""
    from n4a_fast.errors import ForeignStoreError, NotFoundError
    from n4a_fast.store import WorkspaceStore as Store

    database, foreign = (place / name for name in STORE_FILES)
    if not database.exists() and foreign.exists():
        raise ForeignStoreError(foreign)
    if not database.exists():
        raise NotFoundError("workspace", str(place), "check the path", where="")
    return Store(place, lock_timeout=_patience())


def confirmed(question: str, yes: bool) -> None:
    """Go on only when the user agrees; without a terminal only with `--yes`."""
    if yes:
        return
    if not sys.stdin.isatty():
        stop(f"{question} Say --yes to do it without being asked, or --dry-run to look.", USAGE)
    if not typer.confirm(question, err=True):
        raise typer.Exit(REFUSED)


def _patience() -> float:
    """Seconds to wait for a workspace that another process has: `$N4A_FAST_LOCK_TIMEOUT`, or 30."""
    given = os.environ.get("N4A_FAST_LOCK_TIMEOUT", "30")
    try:
        return max(float(given), 0.0)
    except ValueError:
        stop(f"$N4A_FAST_LOCK_TIMEOUT is {given!r}; give seconds", USAGE)
