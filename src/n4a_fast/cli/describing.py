"""What `show`, `compare` and `info` tell: one thing in full, several beside each other, a workspace at a glance."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from n4a_fast.cli.printing import Style, cell, columns_of, print_document, print_table, size_text, write
from n4a_fast.errors import InvalidInputError
from n4a_fast.predictions.finding import KINDS, Found
from n4a_fast.values.texttable import Column, plain, short_ids, table

if TYPE_CHECKING:
    from n4a_fast.store import WorkspaceStore

TABLES = ("runs", "pipelines", "chains", "predictions", "prediction_arrays", "artifacts", "logs")
_VALUES_SHOWN = 8
_KIND = " UNION ALL ".join(
    f"SELECT '{kind}' AS kind FROM {table} WHERE {kind}_id = ?1" for kind, table in KINDS.items()
)
_FOLDS = """SELECT fold_id AS fold, partition, val_score, test_score, train_score, n_samples, refit_context,
    prediction_id
FROM predictions WHERE chain_id = ? ORDER BY TRY_CAST(fold_id AS INTEGER) NULLS LAST, fold_id, partition"""
_VAL_BY_FOLD = """SELECT fold_id, avg(val_score) FILTER (partition = 'val') AS val FROM predictions
WHERE chain_id = ? AND refit_context IS NULL AND fold_id NOT IN ('avg', 'w_avg', 'final') GROUP BY fold_id
ORDER BY TRY_CAST(fold_id AS INTEGER) NULLS LAST, fold_id"""
_ERRORS = """SELECT name, error FROM pipelines WHERE run_id = ? AND status = 'failed'
ORDER BY completed_at DESC NULLS LAST LIMIT 5"""
_NEWEST = """SELECT r.run_id, r.name, r.status, r.created_at AS created, count(p.pipeline_id) AS pipelines, r.error
FROM runs r LEFT JOIN pipelines p ON p.run_id = r.run_id
GROUP BY r.run_id, r.name, r.status, r.created_at, r.error ORDER BY r.created_at DESC, r.run_id DESC LIMIT 20"""


def found(store: WorkspaceStore, text: str, kind: str | None = None) -> Found:
    """What a text means, and of what kind it is."""
    identifier = store.find(text, kind)
    return Found(kind or str(store.sql(_KIND, (identifier,))["kind"][0]), identifier)


def described(store: WorkspaceStore, text: str) -> dict[str, Any]:
    """Everything about one thing, by parts."""
    what = found(store, text)
    tell = {"run": _run, "pipeline": _pipeline, "chain": _chain, "prediction": _prediction}[what.kind]
    return {"kind": what.kind, "id": what.identifier, **tell(store, what.identifier)}


def _run(store: WorkspaceStore, run_id: str) -> dict[str, Any]:
    boards = store.leaderboard(run=run_id, n=5).boards
    return {
        "row": store.get_run(run_id),
        "leaderboard": [row for board in boards for row in board.frame.to_dicts()],
        "errors": store.sql(_ERRORS, (run_id,)).to_dicts(),
    }


def _pipeline(store: WorkspaceStore, pipeline_id: str) -> dict[str, Any]:
    return {
        "row": store.get_pipeline(pipeline_id),
        "chains": store.get_chains_for_pipeline(pipeline_id)
        .select("chain_id", "model_class", "preprocessings")
        .to_dicts(),
        "log": store.get_pipeline_log(pipeline_id).to_dicts(),
    }


def _chain(store: WorkspaceStore, chain_id: str) -> dict[str, Any]:
    plan = store.replay_plan(chain_id)
    return {
        "row": store.get_chain(chain_id),
        "scores": store.sql(_FOLDS, (chain_id,)).to_dicts(),
        "plan": {"compiled": plan.compiled, "steps": list(plan.steps), "error": plan.error},
    }


def _prediction(store: WorkspaceStore, prediction_id: str) -> dict[str, Any]:
    arrays = store.get_prediction_arrays(prediction_id, labels=True) or {}
    shown = {name: _first(values) for name, values in arrays.items() if values is not None}
    return {"row": store.get_prediction(prediction_id), "arrays": shown}


def _first(values: Any) -> dict[str, Any]:
    return {"shape": list(values.shape), "first": values.ravel()[:_VALUES_SHOWN].tolist()}


def print_described(place: Path, what: dict[str, Any], how: Style) -> None:
    """One thing as its JSON document, or in parts below each other."""
    if how.is_json:
        print_document("show", place, what)
        return
    write(f"{what['kind']} {what['id']}")
    for name, part in what.items():
        if name in ("kind", "id") or not part:
            continue
        if isinstance(part, list):
            write(f"{name}:")
            _print_rows(_told(part) if name == "leaderboard" else part, how)
            continue
        if name != "row":
            write(f"{name}:")
        for key, value in part.items():
            _print_fact(key, value, how)


def _print_fact(key: str, value: Any, how: Style) -> None:
    if value in (None, "", [], {}):
        return
    if isinstance(value, list) and all(isinstance(each, dict) for each in value):
        write(f"  {key}:")
        names = dict.fromkeys(name for each in value for name in each)
        _print_rows([{name: each.get(name) for name in names} for each in value], how, "    ")
    elif isinstance(value, list) and all(isinstance(each, str) for each in value):
        write(f"  {key}:" + "".join(f"\n    {cell(each)}" for each in value))
    else:
        write(f"  {key}: {cell(value)}")


def _print_rows(rows: list[dict[str, Any]], how: Style, indent: str = "") -> None:
    ids = ("chain_id", "run_id", "pipeline_id", "prediction_id", "log_id")
    print_table(columns_of(rows, ids=ids, whole=how.whole_ids), how, indent)


def _told(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    names = ("rank", "chain_id", "dataset_name", "metric", "preprocessings", "model_name", "val_score", "test_score")
    return [{name: row[name] for name in names} for row in rows]


# -- beside each other -------------------------------------------------------------------------


def compared(store: WorkspaceStore, texts: Sequence[str]) -> list[dict[str, Any]]:
    """A row for each thing that differs, with a value for each run or chain, and for chains each fold's difference to
    the first.
    """
    things = [found(store, text) for text in texts]
    kinds = {thing.kind for thing in things}
    if len(kinds) > 1 or not kinds <= {"run", "chain"}:
        raise InvalidInputError(f"compare takes runs, or chains, not {' and '.join(sorted(kinds))}")
    facts = [_facts(store, thing) for thing in things]
    names = list(dict.fromkeys(name for fact in facts for name in fact))
    titles = [thing.identifier[-8:] for thing in things]
    rows = [
        {"what": name, **{title: fact.get(name) for title, fact in zip(titles, facts, strict=True)}} for name in names
    ]
    return [row for row in rows if len({cell(row[title]) for title in titles}) > 1]


def _facts(store: WorkspaceStore, thing: Found) -> dict[str, Any]:
    if thing.kind == "run":
        run = store.get_run(thing.identifier) or {}
        config = run["config"] if isinstance(run["config"], dict) else {"config": run["config"]}
        best = {
            f"best {board.dataset} {board.metric}": board.frame["val_score"][0]
            for board in store.leaderboard(run=thing.identifier, n=1).boards
        }
        return {"name": run["name"], "status": run["status"], "datasets": run["datasets"], **config, **best}
    chain = store.get_chain(thing.identifier) or {}
    steps = {
        f"step {step.get('step_idx')}": f"{step.get('operator_class')} {cell(step.get('params') or {})}"
        for step in chain["steps"] or []
    }
    folds = dict(store.sql(_VAL_BY_FOLD, (thing.identifier,)).rows())
    scores = [value for value in folds.values() if value is not None]
    mean = {"mean val": sum(scores) / len(scores)} if scores else {}
    told = {"model": chain["model_class"], "preprocessing": chain["preprocessings"], **steps, **mean}
    return {**told, **{f"val of fold {fold}": value for fold, value in folds.items()}}


# -- a workspace at a glance -------------------------------------------------------------------


def overview(store: WorkspaceStore) -> dict[str, Any]:
    """Rows, sizes, writers and newest runs."""
    stats = store.stats()
    counts = " UNION ALL ".join(
        f"SELECT {n} AS place, '{name}' AS name, count(*) AS n FROM {name}" for n, name in enumerate(TABLES)
    )
    rows = store.sql(f"SELECT name, n FROM ({counts}) ORDER BY place").rows()
    return {
        "rows": dict(rows),
        "files": _sizes(store.workspace_path),
        "writers": [{"pid": each.pid, "is_alive": each.is_alive, "flushes": each.flushes} for each in stats.writers],
        "runs": store.sql(_NEWEST).to_dicts(),
    }


def print_overview(place: Path, told: dict[str, Any], how: Style) -> None:
    """The overview as its JSON document, or as tables."""
    if how.is_json:
        print_document("info", place, told)
        return
    write(f"\n{place.resolve()}\n")
    _two(
        "on disk",
        [(name, f"{each['files']} {size_text(each['bytes'])}") for name, each in told["files"].items()],
        "files size",
    )
    _two("table", [(name, f"{n:,}") for name, n in told["rows"].items()], "rows")
    for each in told["writers"]:
        state = "running" if each["is_alive"] else "ended"
        write(f"  writer {each['pid']} {state}, {each['flushes']} flushes not yet in the tables")
    if told["runs"]:
        ids = [row["run_id"] for row in told["runs"]]
        columns = [
            Column("run", ids if how.whole_ids else short_ids(ids), kept=True),
            Column("name", [plain(row["name"]) for row in told["runs"]], cut=True, kept=True),
            Column("status", [row["status"] for row in told["runs"]]),
            Column("created", [cell(row["created"]) for row in told["runs"]]),
            Column("pipelines", [f"{row['pipelines']:,}" for row in told["runs"]], right=True),
        ]
        write("\n" + str(table(columns, how.width, indent="  ")))
    for row in told["runs"]:
        if row["error"]:
            write(f"  {row['run_id']} failed: {plain(row['error'])}")


def _two(left: str, rows: list[tuple[str, str]], right: str) -> None:
    columns = [Column(left, [name for name, _ in rows]), Column(right, [value for _, value in rows], right=True)]
    write(str(table(columns, indent="  ")) + "\n")


def _sizes(place: Path) -> dict[str, dict[str, int]]:
    """What lies in the workspace, as files and bytes; an original kept beside the store file has a line of its own."""
    database = [file for file in place.glob("store.duckdb*") if file.is_file()]
    kept = [file for file in database if file.name.startswith("store.duckdb.nirs4all")]
    artifacts = [file for file in (place / "artifacts").glob("[!.]*/*") if file.is_file()]
    groups = {
        "store.duckdb": [file for file in database if file not in kept],
        "artifacts/": artifacts,
        "store.duckdb.nirs4all": kept,
    }
    return {
        name: {"files": len(files), "bytes": sum(file.stat().st_size for file in files)}
        for name, files in groups.items()
        if files or files is not kept
    }
