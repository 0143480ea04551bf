"""The few statements by which nirs4all 1.x and its studio write beside the store's methods.

Results of analyses are inserted into their own tables, and a run's description is updated after it has
been made: both go through memory and the log, like everything that is saved.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sqlglot import exp

from n4a_fast.errors import InvalidInputError
from n4a_fast.integrations.nirs4all.sqlite_dialect import not_taken, parsed
from n4a_fast.integrations.workspaces.batches import CARRIED_TABLES
from n4a_fast.values import checks, jsontext

if TYPE_CHECKING:
    from n4a_fast.store import WorkspaceStore

_OF_A_RUN = ("name", "config", "datasets", "summary", "project_id")
_JSON = ("config", "datasets", "summary")


def write(store: WorkspaceStore, sql: str, parameters: Sequence[Any]) -> int:
    """Carry out one INSERT of a result or UPDATE of a run; how many rows it changed."""
    statement, given = parsed(sql), iter(parameters)
    table = statement.find(exp.Table)
    name = table.name.lower() if table is not None else ""
    if isinstance(statement, exp.Insert) and name in CARRIED_TABLES and isinstance(statement.this, exp.Schema):
        columns = [column.name for column in statement.this.expressions]
        values = next(iter(statement.find_all(exp.Tuple))).expressions
        return _insert(store, name, {key: _value(each, given) for key, each in zip(columns, values, strict=True)})
    if isinstance(statement, exp.Update) and name == "runs":
        return _update_run(store, statement, parameters)
    raise not_taken(f"{statement.key.upper()}{f' of {name}' if name else ''}")


def _insert(store: WorkspaceStore, table: str, row: dict[str, Any]) -> int:
    workspace = store._open(writing=True)
    with workspace.lock:
        row.setdefault("created_at", checks.now().isoformat(" ", "seconds"))
        workspace.carried.save(table, row[CARRIED_TABLES[table]], row)
    return 1


def _update_run(store: WorkspaceStore, statement: exp.Update, parameters: Sequence[Any]) -> int:
    given = iter(parameters)
    changes = {change.this.name: _value(change.expression, given, parameters) for change in statement.expressions}
    where = statement.args["where"].this if statement.args.get("where") else None
    if not isinstance(where, exp.EQ) or where.this.name != "run_id" or not changes.keys() <= set(_OF_A_RUN):
        raise InvalidInputError(f"of runs, {', '.join(_OF_A_RUN)} are updated, WHERE run_id = ?")
    run_id = _value(where.expression, given, parameters)
    workspace = store._open(writing=True)
    with workspace.lock:
        if not workspace.runs.exists(run_id):
            return 0
        for key in _JSON:
            if key in changes:
                jsontext.decode(changes[key])  # refused before it is stored
        workspace.runs.change(run_id, **changes)
    return 1


def _value(found: exp.Expr, given: Any, numbered: Sequence[Any] = ()) -> Any:
    """A literal, or what is bound to `?` or `$1`."""
    if isinstance(found, exp.Column) and found.name.startswith("$"):
        return numbered[int(found.name[1:]) - 1]
    if isinstance(found, exp.Placeholder):
        return next(given)
    if isinstance(found, exp.Null):
        return None
    if isinstance(found, exp.Literal):
        return found.this if found.is_string else float(found.this) if "." in found.this else int(found.this)
    raise InvalidInputError(f"{found.sql('sqlite')} is no value that can be stored")
