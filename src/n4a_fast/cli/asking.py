"""`sql`, `doctor`, `export`, `import`: questions in SQL, the state of this machine, files out and in."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from n4a_fast.cli.application import (
    FOUND,
    OneWorkspace,
    WorkspaceOption,
    command,
    ids,
    one,
    reading,
    say,
    split,
    stop,
    words,
    writing,
)
from n4a_fast.cli.printing import (
    Format,
    FormatOption,
    JsonOption,
    WideOption,
    columns_of,
    print_document,
    show_rows,
    style,
    working,
    write,
    write_data,
)

if TYPE_CHECKING:
    import polars as pl

    from n4a_fast.store import WorkspaceStore

ROWS_SHOWN = 100
_TEXT_FORMS = {".n4a": "n4a", ".py": "n4a.py"}


@command("sql", 'sql my_sweep "SELECT name, status FROM runs"')
def sql(
    things: Annotated[list[str] | None, words("QUERY", "one SELECT in DuckDB's SQL, @FILE, or - for stdin")] = None,
    option: WorkspaceOption = None,
    param: Annotated[
        list[str] | None, typer.Option(help="k=v: the value of $k in the query; may be given again.")
    ] = None,
    limit: Annotated[int, typer.Option(help="Rows that a table shows at most.", min=0)] = ROWS_SHOWN,
    format: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
    csv: Annotated[bool, typer.Option("--csv", help="Every row and column as CSV: --format csv.")] = False,
    wide: WideOption = False,
) -> None:
    """Ask a workspace in SQL, read-only."""
    place, rest = split(things, option)
    if len(rest) != 1:
        stop("give one query, in quotes", 2)
    how = style(Format.CSV if csv else format, as_json, wide)
    query, params = _bound(_text_of(rest[0]), param or [])
    with reading(place) as store, working("asking"):
        frame = store.sql(query, params)
    if how.format is Format.CSV:
        write_data(csv_text(frame).rstrip("\n"))
        return
    shown = frame if how.is_json else frame.head(limit)
    rows = shown.to_dicts() if how.is_json else [_nulls(row) for row in shown.to_dicts()]
    if not rows and how.format is Format.TABLE:
        write("  ".join(frame.columns))
    show_rows("sql", place, rows, columns_of(rows), how, nothing="no rows")
    if shown.height < frame.height:
        say(f"{shown.height} of {frame.height:,} rows; --csv prints all of them")


def csv_text(frame: pl.DataFrame) -> str:
    """The frame as CSV; lists and structs, which CSV has no form for, as JSON text."""
    import polars as pl

    nested = [name for name, dtype in frame.schema.items() if dtype.is_nested()]
    texts = [
        pl.Series(name, [None if value is None else json.dumps(value, default=str) for value in frame[name].to_list()])
        for name in nested
    ]
    return frame.with_columns(texts).write_csv()


def _nulls(row: dict[str, Any]) -> dict[str, Any]:
    return {name: "NULL" if value is None else value for name, value in row.items()}


def _text_of(query: str) -> str:
    if query == "-":
        return sys.stdin.read()
    if query.startswith("@"):
        try:
            return Path(query[1:]).read_text(encoding="utf-8-sig")
        except OSError as error:
            stop(f"{query[1:]} cannot be read: {error.strerror}")
        except UnicodeDecodeError:
            stop(f"{query[1:]} is no text in UTF-8")
    return query


def _bound(query: str, given: list[str]) -> tuple[str, list[str]]:
    """The query with its $names as numbers, and the values in their order."""
    import re

    values: list[str] = []
    for each in given:
        name, sign, value = each.partition("=")
        if not sign or not name.isidentifier():
            stop(f"--param {each!r} is not of the form name=value", 2)
        values.append(value)
        query = re.sub(rf"\${re.escape(name)}\b", f"${len(values)}", query)
    return query, values


@command("export", "export my_sweep @best -o best.n4a")
def export(
    things: Annotated[list[str] | None, ids("[ID]", "what to write, @best without")] = None,
    option: WorkspaceOption = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Where to: its suffix tells the form.")] = None,
    arrays: Annotated[bool, typer.Option("--arrays", help="With Parquet: the arrays of the predictions, too.")] = False,
    partition_by: Annotated[str | None, typer.Option(help="With Parquet: a folder with a file for each value.")] = None,
    as_json: JsonOption = False,
) -> None:
    """A chain, a run, a configuration or predictions as a file.

    A chain as .n4a or .n4a.py, a run as .yaml, a pipeline's configuration as .json, predictions as .parquet or .csv.
    """
    from n4a_fast.cli.describing import found

    place, rest = split(things, option)
    if out is None or len(rest) > 1:
        stop("give one id, and --out FILE", 2)
    with reading(place) as store, working("writing"):
        if out.suffix in (".parquet", ".csv") or partition_by:
            path = _predictions(store, rest, out, arrays, partition_by)
        else:
            what = found(store, rest[0] if rest else "@best")
            if out.suffix in _TEXT_FORMS:
                identifier = store.find("@best" if what.kind != "chain" else what.identifier, "chain")
                path = store.export_chain(identifier, out, _TEXT_FORMS[out.suffix])
            elif out.suffix in (".yaml", ".yml"):
                path = store.export_run(store.find(what.identifier, "run"), out)
            elif out.suffix == ".json":
                path = store.export_pipeline_config(store.find(what.identifier, "pipeline"), out)
            else:
                stop(f"{out.name!r} has no known form; use .n4a, .n4a.py, .yaml, .json, .parquet or .csv", 2)
    _wrote("export", place, path, as_json)


def _predictions(store: WorkspaceStore, rest: list[str], out: Path, arrays: bool, partition_by: str | None) -> Path:
    """Predictions of what was named, or all of them, as Parquet or CSV."""
    from n4a_fast.cli.describing import found

    filters: dict[str, Any] = {f"{what.kind}_id": what.identifier for what in (found(store, text) for text in rest)}
    if out.suffix == ".csv":
        if arrays or partition_by:
            stop("CSV has no form for arrays and no folders; write .parquet", 2)
        return store.export_predictions_csv(out, **filters)
    return store.export_predictions_parquet(out, arrays=arrays, labels=arrays, partition_by=partition_by, **filters)


@command("import", "import my_sweep best.n4a")
def import_(
    things: Annotated[list[str] | None, words("FILE...", ".n4a bundles")] = None,
    option: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Chains from .n4a bundles, this package's or nirs4all's.

    Nothing in them is run.
    """
    place, rest = split(things, option)
    if not rest:
        stop("name one or more .n4a files", 2)
    with writing(place) as store, working("importing"):
        rows = [{"file": file, "chain_id": store.import_chain(file)} for file in rest]
    show_rows("import", place, rows, columns_of(rows, kept=("file", "chain_id")), style(as_json=as_json))


def _wrote(name: str, place: Path, path: Path, as_json: bool) -> None:
    from n4a_fast.cli.printing import size_text

    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    size = sum(file.stat().st_size for file in files)
    if as_json:
        print_document(name, place, {"path": str(path), "bytes": size})
    else:
        write(f"{path}  {size_text(size)}")


@command("doctor", "doctor my_sweep")
def doctor(
    workspace: OneWorkspace = None,
    option: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Versions, extras and this machine; the state of a workspace.

    With a workspace: its format, who has it, what waits, and its disk.
    """
    from n4a_fast.cli.checking import findings, print_findings

    place = one(workspace, option) if workspace or option else None
    found = findings(place)
    print_findings(place, found, as_json)
    if any(each["state"] == "bad" for each in found):
        raise typer.Exit(FOUND)
