"""Spectra block by block, into arrays and files: what a replay of all at once gives, in little memory, whole or not."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from chemotools.scatter import StandardNormalVariate
from helpers import DEADLINE, child, examples, finish
from hypothesis import given, settings
from hypothesis import strategies as st
from replay_chains import spectra, target
from replay_stores import begin, pls_chain, put_chain
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestRegressor
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.svm import SVR

from n4a_fast import WorkspaceStore
from n4a_fast.errors import InvalidInputError, NotFoundError
from n4a_fast.replay.serve.spectra_blocks import spectra_blocks

X = spectra(400)
Y = target(X)
LITTLE = 2**17  # bytes: blocks of about two hundred spectra for these chains


class AcrossSamples(TransformerMixin, BaseEstimator):
    """Subtracts the mean of the spectra that it is given."""

    def fit(self, X: Any, y: Any = None) -> AcrossSamples:
        self.n_features_in_ = np.shape(X)[1]
        return self

    def transform(self, X: Any) -> Any:
        return X - np.mean(X, axis=0)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkspaceStore]:
    with WorkspaceStore(tmp_path_factory.mktemp("streamed") / "ws") as opened:
        yield opened


@pytest.fixture(scope="module")
def chains(store: WorkspaceStore) -> list[str]:
    """Compiled whole, compiled behind a plain step, by kernels, by trees."""
    pipeline, Z = begin(store), StandardNormalVariate().fit_transform(X)
    forest = RandomForestRegressor(5, max_depth=3, random_state=0).fit(X, Y)
    return [
        pls_chain(store, pipeline, X, Y),
        pls_chain(store, pipeline, X, Y, components=2, deriv=2),
        put_chain(store, pipeline, [StandardNormalVariate().fit(X)], [SVR().fit(Z, Y)]),
        put_chain(store, pipeline, [], [forest]),
    ]


@pytest.fixture(scope="module")
def expected(store: WorkspaceStore, chains: list[str]) -> Any:
    return store.replay_chains(chains, X)


def mapped(folder: Path, values: Any) -> Any:
    np.save(folder / "X.npy", values)
    return np.load(folder / "X.npy", mmap_mode="r")


def parquet(folder: Path, table: pa.Table) -> Path:
    pq.write_table(table, folder / "X.parquet", row_group_size=150)
    return folder / "X.parquet"


def wide(values: Any) -> pa.Table:
    return pa.table({str(number): column for number, column in enumerate(values.T)})


SOURCES: dict[str, Callable[[Path], Any]] = {
    "mapped": lambda folder: mapped(folder, X),
    "mapped, Fortran order": lambda folder: mapped(folder, np.asfortranarray(X)),
    "blocks": lambda folder: (X[first : first + 37] for first in range(0, len(X), 37)),
    "large blocks": lambda folder: iter([X[:1], X[1:]]),
    "frames": lambda folder: iter([pd.DataFrame(X[:100]), pd.DataFrame(X[100:])]),
    "reader": lambda folder: wide(X).to_reader(90),
    "Parquet": lambda folder: parquet(folder, wide(X)),
    "lists in Parquet": lambda folder: parquet(folder, pa.table({"spectra": pa.array(list(X))})),
    "fixed lists in Parquet": lambda folder: parquet(
        folder, pa.table({"spectra": pa.FixedSizeListArray.from_arrays(X.ravel(), X.shape[1])})
    ),
    "array": lambda folder: X,
    "table": lambda folder: pl.DataFrame(X),
}


@pytest.mark.parametrize("source", SOURCES)
def test_every_source_gives_what_spectra_in_memory_give(
    store: WorkspaceStore, chains: list[str], expected: Any, tmp_path: Path, source: str
) -> None:
    found = store.replay_chains(chains, SOURCES[source](tmp_path), max_bytes=LITTLE)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    file = store.replay_chains(chains, SOURCES[source](tmp_path), max_bytes=LITTLE, out=tmp_path / "Y.npy")
    assert file == tmp_path / "Y.npy"
    np.testing.assert_allclose(np.load(file, mmap_mode="r"), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "make", [np.empty, lambda shape: np.empty(shape, order="F"), lambda shape: np.empty(shape, "f4")]
)
def test_a_given_array_is_filled_and_returned(
    store: WorkspaceStore, chains: list[str], expected: Any, tmp_path: Path, make: Any
) -> None:
    out, told = make(expected.shape), []
    found = store.replay_chains(
        chains, mapped(tmp_path, X), max_bytes=LITTLE, out=out, progress=lambda *done: told.append(done)
    )
    assert found is out
    np.testing.assert_allclose(out, expected, rtol=1e-12 if out.itemsize == 8 else 1e-6)
    assert len(told) > 1
    assert told[-1] == (len(X), len(X))
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_a_parquet_file_has_a_column_for_each_chain(
    store: WorkspaceStore, chains: list[str], expected: Any, tmp_path: Path
) -> None:
    store.replay_chains(chains, iter([X]), max_bytes=LITTLE, out=str(tmp_path / "Y.parquet"))
    table = pq.read_table(tmp_path / "Y.parquet")
    assert table.column_names == chains
    np.testing.assert_allclose(np.stack([column.to_numpy() for column in table.columns]), expected, rtol=1e-12)


@pytest.mark.long
def test_several_targets_probabilities_and_labels_are_streamed(store: WorkspaceStore, tmp_path: Path) -> None:
    pipeline = begin(store)
    two = put_chain(store, pipeline, [], [Ridge().fit(X, np.stack([Y, -Y], axis=1))])
    labels = np.array(["low", "middle", "high"])[np.digitize(Y, np.quantile(Y, [0.3, 0.6]))]
    names = [
        put_chain(store, pipeline, [], [LogisticRegression(max_iter=500).fit(X[turn::2], labels[turn::2])])
        for turn in range(2)
    ]
    for ids, more in (([two], {}), (names, {"return_proba": True}), (names, {})):
        expected = store.replay_chains(ids, X, **more)
        for name in ("Y.npy", "Y.parquet"):
            store.replay_chains(ids, mapped(tmp_path, X), max_bytes=LITTLE, out=tmp_path / name, **more)
        found = np.load(tmp_path / "Y.npy")
        listed = [column.to_pylist() for column in pq.read_table(tmp_path / "Y.parquet").columns]
        assert found.dtype == expected.dtype
        assert found.tolist() == expected.tolist() == np.array(listed).tolist()


@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=12),
    rows=st.integers(1, 50),
    head=st.integers(1, 70),
)
@settings(max_examples=examples(80))
def test_blocks_of_any_size_come_as_blocks_of_the_size_asked_for(sizes: list[int], rows: int, head: int) -> None:
    ends = np.cumsum([0, *sizes])
    whole = np.arange(ends[-1] * 3.0).reshape(-1, 3)
    source = spectra_blocks(whole[a:b] for a, b in pairwise(ends))
    assert source.head(head).tolist() == whole[:head].tolist()
    blocks = list(source.blocks(rows))
    assert np.concatenate(blocks).tolist() == whole.tolist()
    assert {len(block) for block in blocks[:-1]} <= {rows}
    assert len(blocks[-1]) <= rows


def test_a_chain_that_looks_at_several_spectra_at_once_is_refused(store: WorkspaceStore, tmp_path: Path) -> None:
    step = AcrossSamples().fit(X)
    chain = put_chain(store, begin(store), [step], [Ridge().fit(step.transform(X), Y)])
    with pytest.raises(InvalidInputError, match=f"{chain}.*in blocks"):
        store.replay_chains([chain], mapped(tmp_path, X), max_bytes=LITTLE, out=tmp_path / "Y.npy")
    assert not (tmp_path / "Y.npy").exists()
    assert store.replay_chains([chain], X).shape == (1, len(X))


def test_a_chain_that_predicts_nan_beyond_its_training_does_so_in_blocks(store: WorkspaceStore) -> None:
    step = PCA(1).fit(X[:40])
    model = IsotonicRegression(out_of_bounds="nan").fit(step.transform(X[:40]), Y[:40])
    chain = put_chain(store, begin(store), [step], [model])
    expected = store.replay_chains([chain], X)
    assert 0 < np.isnan(expected).sum() < len(X)
    np.testing.assert_array_equal(store.replay_chains([chain], iter([X]), max_bytes=LITTLE), expected)


def test_what_does_not_fit_is_refused_and_leaves_no_file(
    store: WorkspaceStore, chains: list[str], tmp_path: Path
) -> None:
    bad = X.copy()
    bad[333, 2] = np.nan
    listed = list(tmp_path.iterdir())
    refused: list[tuple[Any, dict[str, Any], str]] = [
        (iter([X[:10], X[10:20, :-1]]), {"out": tmp_path / "Y.npy"}, "a block of X has shape"),
        (iter([X[:, :-1]]), {"out": tmp_path / "Y.parquet"}, "columns"),
        (iter([]), {}, "no block"),
        (iter([np.ma.masked_greater(X, 1.0)]), {}, "MaskedArray"),
        (np.ma.masked_greater(X, 1.0), {"out": tmp_path / "Y.npy"}, "MaskedArray"),
        (iter([bad]), {"out": tmp_path / "Y.npy"}, "NaN"),
        (X, {"out": tmp_path / "Y.csv"}, "must be an array, or the path"),
        (X, {"out": np.empty((3, len(X)))}, "the predictions are"),
        (iter([X]), {"out": np.empty((len(chains), 399))}, "more spectra"),
        (iter([X]), {"out": np.empty((len(chains), 401))}, "its end was not filled"),
        (X, {"out": np.empty((len(chains), len(X)), int)}, "the predictions are"),
        (tmp_path / "none.parquet", {}, "cannot be read"),
    ]
    for source, more, told in refused:
        with pytest.raises(InvalidInputError, match=told):
            store.replay_chains(chains, source, max_bytes=LITTLE, **more)
    with pytest.raises(InvalidInputError, match="named twice"):
        store.replay_chains([chains[0], chains[0]], X, out=tmp_path / "Y.parquet")
    with pytest.raises(NotFoundError):
        store.replay_chains(["nobody"], X, out=tmp_path / "Y.npy")
    assert list(tmp_path.iterdir()) == listed


def test_an_error_in_a_block_tells_where_the_block_lies(store: WorkspaceStore, chains: list[str]) -> None:
    bad = X.copy()
    bad[390, 2] = np.inf
    with pytest.raises(InvalidInputError) as raised:
        store.replay_chains(chains, iter([bad]), max_bytes=LITTLE)
    assert "in the block of spectra" in raised.value.__notes__[0]


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
def test_columns_of_a_file_are_compared_by_name(store: WorkspaceStore, tmp_path: Path) -> None:
    names = [f"{1000 + 2 * number}" for number in range(X.shape[1])]
    frame = pd.DataFrame(X, columns=names)
    chain = put_chain(store, begin(store), [], [Ridge().fit(frame, Y)])
    file = parquet(tmp_path, pa.table(dict(zip(names, X.T, strict=True))))
    np.testing.assert_allclose(store.replay_chains([chain], file)[0], Ridge().fit(frame, Y).predict(frame), rtol=1e-12)
    turned = parquet(tmp_path, pa.table(dict(zip(names[::-1], X.T, strict=True))))
    with pytest.raises(InvalidInputError, match="column 0 of X is"):
        store.replay_chains([chain], turned)


_MEMORY = """
import resource, sys
import numpy as np
from n4a_fast import WorkspaceStore
folder, chain, rows = sys.argv[1], sys.argv[2], int(sys.argv[3])
def used():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
X = np.load(folder + "/large.npy", mmap_mode="r")
with WorkspaceStore.open_readonly(folder + "/ws") as store:
    store.replay_chains([chain] * 20, X[:500], out=folder + "/small.npy", threads=2)
    before = used()
    store.replay_chains([chain] * 20, X, out=folder + "/all.npy", max_bytes=2**24, threads=2)
print(X.nbytes + 20 * 8 * len(X), used() - before)
"""


def test_memory_follows_max_bytes_and_not_the_spectra(tmp_path: Path) -> None:
    with WorkspaceStore(tmp_path / "ws") as store:
        chain = pls_chain(store, begin(store), X, Y)
        expected = store.replay_chain(chain, X)
    np.save(tmp_path / "large.npy", np.tile(X, (2000, 1)))
    whole, grown = map(int, finish(child(_MEMORY, tmp_path, chain, 2000)).split())
    assert whole > 2e8
    assert grown < 2**25  # 2**24 are asked for; the rest is the allocator's, of each thread, and Python's own objects
    found = np.load(tmp_path / "all.npy", mmap_mode="r")
    np.testing.assert_allclose(found[:, -len(X) :], np.tile(expected, (20, 1)), rtol=1e-12)


_AT_EXIT = """
import atexit, sys
import numpy as np
from n4a_fast import WorkspaceStore
folder, chain = sys.argv[1:3]
store = WorkspaceStore(folder + "/ws")
X = np.load(folder + "/X.npy")
@atexit.register
def replay():
    np.save(folder + "/found.npy", store.replay_chains([chain], X, threads=2))
    store.replay_chains([chain], iter([X]), out=folder + "/streamed.npy", threads=2)
"""


def test_a_replay_at_exit_which_can_start_no_thread_gives_the_same(tmp_path: Path) -> None:
    with WorkspaceStore(tmp_path / "ws") as store:
        chain = pls_chain(store, begin(store), X, Y)
        expected = store.replay_chains([chain], X)
    np.save(tmp_path / "X.npy", X)
    finish(child(_AT_EXIT, tmp_path, chain))
    for name in ("found.npy", "streamed.npy"):
        np.testing.assert_allclose(np.load(tmp_path / name), expected, rtol=1e-12)


_ENDLESS = """
import sys
import numpy as np
from n4a_fast import WorkspaceStore
folder, chain = sys.argv[1:3]
X = np.load(folder + "/X.npy")
def blocks():
    for turn in range(1_000_000):
        if turn == 20:
            print("under way", flush=True)
        yield X
with WorkspaceStore.open_readonly(folder + "/ws") as store:
    store.replay_chains([chain], blocks(), out=sys.argv[3], max_bytes=2**17)
"""


@pytest.mark.parametrize("name", ["Y.npy", "Y.parquet"])
def test_a_file_of_a_killed_replay_is_absent_or_what_it_was(tmp_path: Path, name: str) -> None:
    with WorkspaceStore(tmp_path / "ws") as store:
        chain = pls_chain(store, begin(store), X, Y)
    np.save(tmp_path / "X.npy", X)
    (tmp_path / name).write_bytes(b"of before")
    process = child(_ENDLESS, tmp_path, chain, tmp_path / name)
    assert process.stdout is not None
    assert process.stdout.readline() == "under way\n"
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=DEADLINE)
    assert (tmp_path / name).read_bytes() == b"of before"
