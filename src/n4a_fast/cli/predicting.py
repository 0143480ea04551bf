"""`predict`: predictions of stored chains on the spectra in a file."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from n4a_fast.cli.application import WorkspaceOption, command, ids, reading, say, split, stop, writing
from n4a_fast.cli.printing import JsonOption, document, write

if TYPE_CHECKING:
    from n4a_fast.cli.spectra import Spectra
    from n4a_fast.store import WorkspaceStore

_WIDTH = "SELECT max(n_features) AS width FROM predictions WHERE chain_id = ? AND n_features > 0"


@command("predict", "predict my_sweep @best new_spectra.csv -o moisture.csv")
def predict(
    things: Annotated[
        list[str] | None, ids("[CHAIN]... FILE", "chains, the best one without any, and last the file")
    ] = None,
    option: WorkspaceOption = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="A CSV file; stdout without.")] = None,
    id_column: Annotated[str | None, typer.Option(help="The column that names the spectra.")] = None,
    drop: Annotated[list[str] | None, typer.Option(help="A column to leave out; may be given again.")] = None,
    header: Annotated[
        bool | None, typer.Option("--header/--no-header", help="Whether the first line is a head.")
    ] = None,
    proba: Annotated[bool, typer.Option("--proba", help="Probabilities of the classes.")] = False,
    folds: Annotated[bool, typer.Option("--folds", help="Also what the model of each fold predicts.")] = False,
    chunk: Annotated[int, typer.Option(help="Spectra at a time.", min=1)] = 10_000,
    save: Annotated[str | None, typer.Option(help="Keep the predictions, too, as those of this data set.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Predictions of stored chains for the spectra in a file.

    FILE: CSV, Parquet, npy or npz, a spectrum a row.
    """
    from n4a_fast.cli.spectra import read_spectra_file

    place, rest = split(things, option)
    if not rest:
        stop("name a chain (@best without one) and a file of spectra", 2)
    with reading(place) as store:
        chains = [store.find(text, "chain") for text in rest[:-1] or ["@best"]]
        spectra = read_spectra_file(Path(rest[-1]), header=header, id_column=id_column, drop=tuple(drop or ()))
        for chain in chains:
            _require_width(store, chain, spectra, rest[-1])
        say(spectra.told())
        heads, columns = _columns(store, chains, spectra, proba, folds, chunk)
    if save is not None:
        with writing(place) as store:
            kept = store.replay_and_save(chains, spectra.X, dataset=save, wavelengths=spectra.wavelengths)
        say(f"kept {len(kept)} prediction{'s'[: len(kept) != 1]} of {save}")
    if out is not None or not as_json:
        _write(out, spectra, heads, columns)
    if as_json:
        names = ["id", *heads]
        rows = [] if out is not None else [dict(zip(names, row, strict=True)) for row in _rows(spectra, columns)]
        write(document("predict", place, rows, chains=chains, columns=names, spectra=len(spectra.ids), path=out))


def _require_width(store: WorkspaceStore, chain: str, spectra: Spectra, file: str) -> None:
    width = store.sql(_WIDTH, (chain,))["width"][0]
    if width is not None and width != spectra.X.shape[1]:
        told = f"chain {chain[-8:]} takes {width:,} values a spectrum; {file} has {spectra.X.shape[1]:,}"
        stop(f"{told}: give the matching columns (--drop leaves others out); nothing is interpolated")


def _columns(
    store: WorkspaceStore, chains: list[str], spectra: Spectra, proba: bool, folds: bool, chunk: int
) -> tuple[list[str], list[Any]]:
    """Heads and values of the columns: one a chain and fold, or with probabilities, or targets, one for each."""
    from n4a_fast.cli.workspaces import bars

    heads: list[str] = []
    columns: list[Any] = []
    models = [(chain, fold) for chain in chains for fold in ["auto", *(_folds_of(store, chain) if folds else [])]]
    labels = {chain: _labels(store, chain) for chain in chains}
    with bars() as progress:
        for number, (chain, fold) in enumerate(models):
            told = partial(_told, progress, number * len(spectra.X), len(models) * len(spectra.X))
            found = _as_labels(_predicted(store, chain, fold, spectra, proba, chunk, told), labels[chain])
            name = chain[-8:] if len(chains) > 1 else "p" if proba else "prediction"
            name = name if fold == "auto" else f"{name}_fold_{fold}"
            parts = _names_of_parts(store, chain, found.shape[1], labels[chain]) if found.ndim == 2 else []
            heads += [f"{name}_{part}" for part in parts] or [name]
            columns += [column.tolist() for column in (found.T if parts else [found])]
    return heads, columns


def _told(progress: Any, before: int, total: int, done: int) -> None:
    progress("predicting", before + done, total)


def _predicted(
    store: WorkspaceStore, chain: str, fold: str, spectra: Spectra, proba: bool, chunk: int, told: Callable[[int], None]
) -> Any:
    import numpy as np

    parts = []
    for start in range(0, len(spectra.X), chunk):
        part = spectra.X[start : start + chunk]
        wanted: Any = fold if fold == "auto" else [fold]
        parts.append(store.replay_chain(chain, part, spectra.wavelengths, folds=wanted, return_proba=proba))
        told(start + len(part))
    return np.concatenate(parts) if parts else np.zeros(0)


def _folds_of(store: WorkspaceStore, chain: str) -> list[str]:
    """The chain's folds that have a model, by number, the refit last."""
    from n4a_fast.replay.plan.folds import fold_key

    saved = (store.get_chain(chain) or {}).get("fold_artifacts") or {}
    keys = {fold_key(each) for each in saved} - {"avg", "w_avg"}
    return sorted(keys, key=lambda key: (not key.isdecimal(), int(key) if key.isdecimal() else 0, key))


def _labels(store: WorkspaceStore, chain: str) -> dict[float, str]:
    """What the numbers that a classifier was trained on stand for; nothing where it knows the labels themselves."""
    from n4a_fast.report.held_out import are_places, class_names

    names = class_names(store, chain)
    known = store.describe_chain(chain).input.classes if names else ()
    return {float(each): names[int(each)] for each in known} if known and are_places(known, names) else {}


def _as_labels(found: Any, labels: dict[float, str]) -> Any:
    """Numbers of classes as their labels; other predictions as they are."""
    import numpy as np

    if found.ndim != 1 or not labels:
        return found
    return np.array([labels.get(each, each) for each in found.tolist()], dtype=object)


def _names_of_parts(store: WorkspaceStore, chain: str, width: int, labels: dict[float, str]) -> list[str]:
    """Names of the columns of one chain: its classes, its targets, or their places."""
    known = store.describe_chain(chain).input
    named = next((each for each in (known.classes, known.targets) if len(each) == width), range(width))
    return [labels.get(each, str(each)) if isinstance(each, int | float) else str(each) for each in named]


def _write(out: Path | None, spectra: Spectra, heads: list[str], columns: list[Any]) -> None:
    if out is None:
        _write_rows(sys.stdout, spectra, heads, columns)
        return
    try:
        with out.open("w", newline="", encoding="utf-8") as file:
            _write_rows(file, spectra, heads, columns)
    except OSError as error:
        stop(f"{out} cannot be written: {error.strerror}")
    say(f"wrote {out}: {len(spectra.ids):,} rows")


def _write_rows(file: Any, spectra: Spectra, heads: list[str], columns: list[Any]) -> None:
    import csv

    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["id", *heads])
    writer.writerows(_rows(spectra, columns))


def _rows(spectra: Spectra, columns: list[Any]) -> Iterator[tuple[Any, ...]]:
    return zip(spectra.ids, *columns, strict=True)
