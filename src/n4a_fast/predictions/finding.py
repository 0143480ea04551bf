"""A run, pipeline, chain or prediction by what people type: a whole id, its last characters, a name, @best or @last."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from n4a_fast.engine.connection import Database
from n4a_fast.errors import AmbiguousError, NotFoundError
from n4a_fast.predictions.queries import one_of
from n4a_fast.predictions.ranking import Question, Ranking
from n4a_fast.schema.columns import THIS_PREDICTION
from n4a_fast.values import checks, ids

KINDS = {"run": "runs", "pipeline": "pipelines", "chain": "chains", "prediction": "predictions"}
_SHORTEST = 4  # characters of an id
_SHOWN = 5  # candidates that an error names

_WHOLE = "SELECT {kind}_id FROM {table} WHERE {kind}_id = ?"
_WHOLE_PREDICTION = f"SELECT prediction_id FROM predictions p WHERE {THIS_PREDICTION.format('p')}"
_NAMED = "SELECT {kind}_id FROM {table} WHERE name = ? ORDER BY created_at DESC LIMIT ?"
_ENDING = "SELECT {kind}_id FROM {table} WHERE suffix({kind}_id, ?) LIMIT ?"
_LAST = "SELECT {kind}_id FROM {table} ORDER BY created_at DESC, {kind}_id DESC LIMIT 1"


@dataclass(frozen=True, slots=True)
class Found:
    """What a text means: "run", "pipeline", "chain" or "prediction", and the whole id."""

    kind: str
    identifier: str


def find(database: Database, text: str, kind: str | None = None) -> Found:
    """The one thing that `text` means; NotFoundError for none, AmbiguousError for several.

    An id wins over a name, and among short ids those of runs, pipelines and chains over those of predictions.
    """
    wanted = checks.identifier(text, "id")
    kinds = [one_of(kind, tuple(KINDS), "kind")] if kind is not None else list(KINDS)
    with database.reading():
        if wanted.startswith("@"):
            return _special(database, wanted, kind)
        for each in kinds:
            if _whole(database, each, wanted):
                return Found(each, wanted)
        found = [
            Found(each, name)
            for each in kinds
            if each in ("run", "pipeline")
            for name in _named(database, each, wanted)
        ]
        if len(wanted) >= _SHORTEST:
            found += [
                Found(each, name) for each in kinds if each != "prediction" for name in _ending(database, each, wanted)
            ]
            if not found and "prediction" in kinds:
                found = [Found("prediction", name) for name in _ending(database, "prediction", wanted)]
    return _only(wanted, list(dict.fromkeys(found)), kind)


def _only(text: str, found: list[Found], kind: str | None) -> Found:
    if not found:
        cure = (
            f"give a whole id, its last {_SHORTEST} or more characters, the name of a run or pipeline, @best or @last"
        )
        raise NotFoundError(kind or "run, pipeline, chain or prediction", text, cure)
    if len(found) > 1:
        raise AmbiguousError(text, tuple(f"{each.kind} {each.identifier}" for each in found[:_SHOWN]))
    return found[0]


def _special(database: Database, text: str, kind: str | None) -> Found:
    if text == "@last":
        wanted = kind or "run"
        rows = database.rows(_LAST.format(kind=wanted, table=KINDS[wanted]))
        if rows:
            return Found(wanted, str(rows[0][0]))
        raise NotFoundError(wanted, text, "nothing is stored yet")
    if text != "@best":
        raise NotFoundError(kind or "thing", text, "only @best and @last have a meaning")
    boards = Ranking(database).ranked(Question(n=1)).boards
    if not boards:
        raise NotFoundError("chain", text, "no chain of a completed pipeline is ranked yet")
    if len(boards) > 1:
        told = (f"chain {board.frame['chain_id'][0]} ({board.dataset}, {board.metric})" for board in boards[:_SHOWN])
        raise AmbiguousError(text, tuple(told), "there is a best one of each data set and metric: name one of these")
    best = boards[0].frame.row(0, named=True)
    return Found("run", best["run_id"]) if kind == "run" else Found(kind or "chain", best[f"{kind or 'chain'}_id"])


def _whole(database: Database, kind: str, text: str) -> bool:
    if kind == "prediction":
        return bool(database.rows(_WHOLE_PREDICTION, (ids.id_key(text), text)))
    return bool(database.rows(_WHOLE.format(kind=kind, table=KINDS[kind]), (text,)))


def _named(database: Database, kind: str, text: str) -> list[Any]:
    return [name for (name,) in database.rows(_NAMED.format(kind=kind, table=KINDS[kind]), (text, _SHOWN + 1))]


def _ending(database: Database, kind: str, text: str) -> list[Any]:
    return [name for (name,) in database.rows(_ENDING.format(kind=kind, table=KINDS[kind]), (text, _SHOWN + 1))]
