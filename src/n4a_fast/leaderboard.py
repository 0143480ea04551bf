"""`Leaderboard`: the ranked chains of a workspace, as `store.leaderboard(...)` gives them: print it, take its best."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

import polars as pl

from n4a_fast.errors import InvalidInputError, NotFoundError
from n4a_fast.predictions.ranking import RULE, SCORES, Board, Ranked
from n4a_fast.values.texttable import Column, number, plain, short_ids, table
from n4a_fast.views import Chain, Source

_WIDTH = 100
_ROWS_IN_TEXT = 20
_TITLES = {"val": "val ± sd", "test": "test", "final": "final"}


class Leaderboard(Sequence[Chain]):
    """Chains by rank, one board for each data set and metric; boards are never mixed.

    `boards` has them all with their frames, `frame` is one frame of all rows, `[i]` and `best` are chains of the
    only board, `unranked` names metrics that are not ranked because nobody has said whether higher is better.
    """

    rule = RULE

    def __init__(self, store: Source, ranked: Ranked, score: str = "val") -> None:
        self._store, self._ranked, self.score = store, ranked, score

    @property
    def boards(self) -> tuple[Board, ...]:
        """Each data set and metric with its rows, counts and direction."""
        return self._ranked.boards

    @property
    def unranked(self) -> tuple[str, ...]:
        """Metrics that are not ranked, because nobody has said whether higher is better."""
        return self._ranked.unranked

    @property
    def frame(self) -> pl.DataFrame:
        """The rows of all boards below each other; `dataset_name` and `metric` tell which."""
        return self._ranked.frame

    @property
    def scores(self) -> pl.DataFrame:
        """A row for each chain with a score, however few rows the boards show, in no order: `dataset_name`, `metric`,
        `preprocessings`, `model_name`, `val_score`; needs `leaderboard(all_scores=True)`.
        """
        if self._ranked.scores is None:
            raise AttributeError("the scores of all chains were not read; ask for leaderboard(all_scores=True)")
        return self._ranked.scores

    @property
    def best(self) -> Chain:
        """The chain of rank 1; NotFoundError when nothing is ranked, InvalidInputError for several boards."""
        return self[0]

    def __len__(self) -> int:
        return self.frame.height

    @overload
    def __getitem__(self, place: int) -> Chain: ...
    @overload
    def __getitem__(self, place: slice) -> list[Chain]: ...
    def __getitem__(self, place: int | slice) -> Chain | list[Chain]:
        chains = self._only_board().frame["chain_id"].to_list()
        if isinstance(place, slice):
            return [Chain(self._store, each) for each in chains[place]]
        return Chain(self._store, chains[place])

    def __repr__(self) -> str:
        if not self.boards:
            return "\n".join(["Leaderboard: nothing is ranked yet", *_unranked_lines(self.unranked)])
        return "\n\n".join(board_text(board, _WIDTH, self.score)[0] for board in self.boards) + "".join(
            "\n" + line for line in _unranked_lines(self.unranked)
        )

    def _repr_html_(self) -> str | None:
        from n4a_fast.report.cells import leaderboard_cell

        return leaderboard_cell(self)

    def _only_board(self) -> Board:
        if not self.boards:
            raise NotFoundError("chain", "best", "no chain of a completed pipeline is ranked yet", where="")
        if len(self.boards) > 1:
            names = ", ".join(f"{board.dataset} by {board.metric}" for board in self.boards)
            raise InvalidInputError(f"there are several boards ({names}); give dataset= or metric=, or take .boards")
        return self.boards[0]


def board_text(board: Board, width: int | None, score: str = "val", *, whole_ids: bool = False) -> tuple[str, int]:
    """A board as lines of text within `width`, and how many of its columns had no room."""
    lines = table(board_columns(board.frame, score, whole_ids=whole_ids), width, indent="  ")
    told = [str(board), str(lines)]
    if board.incomplete:
        chains = "1 chain" if board.incomplete == 1 else f"{board.incomplete:,} chains"
        told.append(f"  {chains} with a missing or NaN fold ranked last")
    return "\n".join(told), len(lines.left_out)


def board_columns(frame: pl.DataFrame, score: str = "val", *, whole_ids: bool = False) -> list[Column]:
    """The columns of a board, the most telling first."""
    chains = frame["chain_id"].to_list()
    rows = frame.to_dicts()
    scores = {
        "val": [_with_spread(row["val_score"], row["val_sd"]) for row in rows],
        "test": [number(row["test_score"]) for row in rows],
        "final": [number(row["final_score"]) for row in rows],
    }
    rest = [name for name in SCORES if name != score and any(scores[name])]
    return [
        Column("#", [str(row["rank"]) for row in rows], right=True, kept=True),
        Column("chain", chains if whole_ids else short_ids(chains), kept=True),
        Column("preprocessing", [plain(row["preprocessings"]) for row in rows], cut=True),
        Column("model", [plain(row["model_name"]) for row in rows], cut=True),
        Column(_TITLES[score], scores[score], right=True, kept=True),
        *(Column(_TITLES[name], scores[name], right=True) for name in rest),
        Column("folds", [_folds(row["folds"], row["missing_folds"]) for row in rows], right=True),
        *([Column("rmsecv", [number(row["rmsecv"]) for row in rows], right=True)] if _any(rows, "rmsecv") else []),
        Column("run", [_run(row) for row in rows], cut=True),
    ]


def _any(rows: list[dict[str, Any]], name: str) -> bool:
    return any(row[name] is not None for row in rows)


def _run(row: dict[str, Any]) -> str:
    status = "" if row["run_status"] == "completed" else f" ({row['run_status']})"
    return plain(row["run_name"]) + status


def _with_spread(score: float | None, spread: float | None) -> str:
    if score is None:
        return "-"
    return number(score) if spread is None else f"{number(score)} ± {number(spread, 2)}"


def _folds(folds: int, missing: int) -> str:
    return str(folds) if not missing else f"{max(folds - missing, 0)} of {max(folds, missing)}"


def _unranked_lines(metrics: Sequence[str]) -> list[str]:
    return [
        f"not ranked: {plain(metric)}; say store.set_metric_direction({metric!r}, higher_is_better=True) or False"
        for metric in metrics
    ]
