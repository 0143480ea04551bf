"""Replay against the plain path with its objects in memory, against ONNX Runtime, and against what the machine can do.

Everything runs in one BLAS thread. The plain path is `reference.replay_one` with loaded objects: no store, no file.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import cloudpickle
import joblib
import numpy as np
import pytest
from chains import WIDTH, Chains, fill, spectra
from harness import Measure, gate, report
from joblib.parallel import ThreadingBackend
from limits import MatrixProduct, MemoryCopy
from reference import PLAIN, agree, replay_in_turn, replay_one
from sklearn.svm import SVR
from sklearn.tree import DecisionTreeRegressor
from threadpoolctl import threadpool_limits

from n4a_fast import WorkspaceStore

CHAIN = "SNV > Savitzky-Golay > MinMax > 5 PLS folds, 700 wavelengths"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """One BLAS thread for both sides."""
    with threadpool_limits(limits=1, user_api="blas"):
        yield


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[WorkspaceStore, Chains]]:
    """1,000 chains over 8 preprocessings, replayed once and so compiled."""
    with WorkspaceStore(tmp_path_factory.mktemp("many") / "workspace") as store:
        chains = fill(store, 1_000, prefixes=8, pool=12)
        store.replay_chains(chains.ids, spectra(1_000))
        yield store, chains


def _one_chain(measure: Measure, store: WorkspaceStore, rows: int, calls: int, rounds: int) -> None:
    chains, X = fill(store, 1), spectra(rows)
    load, plain = chains.objects.__getitem__, chains.plain[0]
    measure.ratio(
        lambda: replay_one(load, *plain, X),
        lambda: store.replay_chain(chains.ids[0], X),
        rounds=rounds,
        warmup=2,
        calls=calls,
    )
    assert agree(store.replay_chain(chains.ids[0], X), replay_one(load, *plain, X))


@gate("replay_1_row", workload=f"replay_chain on 1 row: {CHAIN}", baseline=PLAIN, size=1, seed=0, threads=1)
def test_replay_1_row(measure: Measure, store: WorkspaceStore) -> None:
    _one_chain(measure, store, 1, 50, 15)
    assert measure.done


@gate(
    "replay_1000_rows", workload=f"replay_chain on 1,000 rows: {CHAIN}", baseline=PLAIN, size=1_000, seed=0, threads=1
)
def test_replay_1000_rows(measure: Measure, store: WorkspaceStore) -> None:
    _one_chain(measure, store, 1_000, 10, 7)
    assert measure.done


@gate(
    "replay_10000_rows",
    workload=f"replay_chain on 10,000 rows: {CHAIN}",
    baseline=PLAIN,
    size=10_000,
    seed=0,
    threads=1,
)
def test_replay_10000_rows(measure: Measure, store: WorkspaceStore) -> None:
    _one_chain(measure, store, 10_000, 1, 7)
    assert measure.done


@gate(
    "replay_bandwidth",
    workload=f"bytes of X a second, replay_chain on 10,000 rows: {CHAIN}",
    size=10_000,
    seed=0,
    threads=1,
    baseline="bytes that a memory copy reads and writes a second",
)
def test_replay_bandwidth(measure: Measure, store: WorkspaceStore) -> None:
    chains, X = fill(store, 1), spectra(10_000)
    copy = MemoryCopy(X.nbytes)  # moves twice the bytes of X: it reads them and writes as many
    measure.ratio(copy, lambda: store.replay_chain(chains.ids[0], X), rounds=41, warmup=3, scale=0.5)
    assert agree(store.replay_chain(chains.ids[0], X), replay_one(chains.objects.__getitem__, *chains.plain[0], X))


@gate(
    "replay_error",
    workload="largest relative error of 1,000 chains on 200 rows",
    baseline=PLAIN,
    size=1_000,
    seed=0,
    threads=1,
)
def test_replay_error(measure: Measure, many: tuple[WorkspaceStore, Chains]) -> None:
    store, chains = many
    X = spectra(200, seed=5)
    found = store.replay_chains(chains.ids, X)
    expected = np.stack(replay_in_turn(chains.objects.__getitem__, chains.plain[::20], X))
    measure.value(float((np.abs(found[::20] - expected).max(axis=1) / np.abs(expected).max(axis=1)).max()), "relative")
    assert len(np.unique(found[:, 0])) > 900


@gate(
    "replay_1000_chains",
    workload="replay_chains: 1,000 chains over 8 preprocessings on 1,000 rows",
    baseline=PLAIN,
    size=1_000,
    seed=0,
    threads=1,
)
def test_replay_1000_chains(measure: Measure, many: tuple[WorkspaceStore, Chains]) -> None:
    store, chains = many
    X, some = spectra(1_000), chains.plain[::125]
    measure.ratio(
        lambda: replay_in_turn(chains.objects.__getitem__, some, X),
        lambda: store.replay_chains(chains.ids, X),
        rounds=9,
        warmup=2,
        scale=len(chains.ids) / len(some),
    )
    assert agree(
        store.replay_chains(chains.ids, X)[::125], np.stack(replay_in_turn(chains.objects.__getitem__, some, X))
    )


@gate(
    "replay_dgemm_peak",
    workload="replay_chains: 1,000 chains over 8 preprocessings on 1,000 rows",
    size=1_000,
    seed=0,
    threads=1,
    baseline="dgemm of (1,000, 700) by (700, 1,000)",
)
def test_replay_dgemm_peak(measure: Measure, many: tuple[WorkspaceStore, Chains]) -> None:
    store, chains = many
    X = spectra(1_000)
    measure.ratio(MatrixProduct(1_000, WIDTH, 1_000), lambda: store.replay_chains(chains.ids, X), rounds=21, warmup=2)
    assert store.replay_chains(chains.ids, X).shape == (1_000, 1_000)


@gate(
    "replay_streamed",
    workload="replay_chains: 1,000 chains, 20,000 spectra of a mapped file into a new .npy file",
    baseline="replay_chains of the same spectra in memory",
    size=20_000,
    seed=0,
    threads=1,
)
def test_replay_streamed(measure: Measure, many: tuple[WorkspaceStore, Chains], tmp_path: Path) -> None:
    found, expected = _stream(measure, many, tmp_path, 20_000, rounds=7)
    assert agree(found, expected)


@report(
    "replay_streamed_200000",
    workload="replay_chains: 1,000 chains, 200,000 spectra of a mapped file into a new .npy file, 1.6 GB",
    baseline="replay_chains of the same spectra in memory",
    size=200_000,
    seed=0,
    threads=1,
)
def test_replay_streamed_200000(measure: Measure, many: tuple[WorkspaceStore, Chains], tmp_path: Path) -> None:
    found, expected = _stream(measure, many, tmp_path, 200_000, rounds=1)
    assert agree(found, expected)


def _stream(
    measure: Measure, many: tuple[WorkspaceStore, Chains], folder: Path, rows: int, rounds: int
) -> tuple[Any, Any]:
    """The last predictions in the file, and what they must be. Each round makes a file of its own: to replace one would
    take the time in which the disk frees the old one's blocks, too.
    """
    store, chains = many
    np.save(folder / "X.npy", spectra(rows))
    mapped, held = np.load(folder / "X.npy", mmap_mode="r"), np.load(folder / "X.npy")
    files = [folder / f"Y{number}.npy" for number in range(rounds + 1)]
    new = iter(files)
    measure.ratio(
        lambda: store.replay_chains(chains.ids, held),
        lambda: store.replay_chains(chains.ids, mapped, out=next(new)),
        rounds=rounds,
        warmup=1,
    )
    some = slice(rows - 100, rows)
    found = np.array(np.load(files[-1], mmap_mode="r")[:, some])
    for file in files:
        file.unlink()
    return found, store.replay_chains(chains.ids, held[some])


class _Weighed(ThreadingBackend):  # type: ignore[misc]
    """A backend of joblib that pickles what it is sent, as those of Dask and Ray do."""

    sent: ClassVar[list[int]] = []

    def submit(self, func: Any, callback: Any = None) -> Any:
        self.sent.append(len(cloudpickle.dumps(func)))
        return super().submit(func, callback)


@gate(
    "replay_sent_to_workers",
    workload="bytes of the largest task for a worker: 2 chains of trees, 10,000 mapped spectra, max_bytes=2**24",
    baseline="bytes of the spectra",
    size=10_000,
    seed=0,
    threads="n_jobs=2",
)
def test_replay_sent_to_workers(measure: Measure, store: WorkspaceStore, tmp_path: Path) -> None:
    chains = fill(store, 2, pool=6, model=lambda seed: DecisionTreeRegressor(max_depth=3, random_state=seed))
    np.save(tmp_path / "X.npy", spectra(10_000))
    mapped, out = np.load(tmp_path / "X.npy", mmap_mode="r"), np.empty((2, 10_000))
    joblib.register_parallel_backend("weighed", _Weighed)
    _Weighed.sent.clear()
    with joblib.parallel_config(backend="weighed"):
        store.replay_chains(chains.ids, mapped, n_jobs=2, out=out, max_bytes=2**24)
    measure.value(max(_Weighed.sent) / mapped.nbytes, "of the spectra")
    assert len(_Weighed.sent) >= 20
    last = np.array(mapped[9_900:])
    assert agree(out[:, 9_900:], np.stack(replay_in_turn(chains.objects.__getitem__, chains.plain, last)))


FIRST_TOUCH = """
import json, sys, time
import numpy as np
from threadpoolctl import threadpool_limits
from n4a_fast import WorkspaceStore
X, ids = np.load({spectra!r}), json.load(sys.stdin)
with threadpool_limits(limits=1, user_api="blas"):
    start = time.perf_counter()
    with WorkspaceStore({workspace!r}) as store:
        found = store.replay_chains(ids, X)
        seconds = time.perf_counter() - start
print(json.dumps([seconds, found.shape, float(found[-1, -1]), "sklearn" in sys.modules]))
"""


@report(
    "replay_first_touch",
    workload="5,000 stored chains on 1,000 rows in a new process",
    baseline="none: seconds",
    size=5_000,
    seed=0,
    threads=1,
)
def test_replay_first_touch(measure: Measure, tmp_path: Path) -> None:
    workspace, X = tmp_path / "workspace", spectra(1_000)
    with WorkspaceStore(workspace) as store:
        chains = fill(store, 5_000, prefixes=8, pool=13)
        for first in range(0, 5_000, 500):
            store.replay_chains(chains.ids[first : first + 500], X[:50])
    np.save(tmp_path / "X.npy", X)
    script = FIRST_TOUCH.format(spectra=str(tmp_path / "X.npy"), workspace=str(workspace))
    runs = []
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", script], input=json.dumps(chains.ids), capture_output=True, text=True, check=True
        )
        runs.append(json.loads(done.stdout))
    measure.value(min(seconds for seconds, *_ in runs), "s")
    last = replay_one(chains.objects.__getitem__, *chains.plain[-1], X)
    for _, shape, value, imported_sklearn in runs:
        assert shape == [5_000, 1_000]
        assert np.isclose(value, last[-1], rtol=1e-9)
        assert not imported_sklearn


@gate(
    "replay_svr",
    workload="replay_chain on 1,000 rows: SNV > Savitzky-Golay > MinMax > 5 folds of RBF SVR",
    baseline=PLAIN,
    size=1_000,
    seed=0,
    threads=1,
)
def test_replay_svr(measure: Measure, store: WorkspaceStore) -> None:
    chains, X = fill(store, 1, model=lambda _: SVR(C=10.0, epsilon=0.001), samples=400), spectra(1_000)
    load, plain = chains.objects.__getitem__, chains.plain[0]
    measure.ratio(lambda: replay_one(load, *plain, X), lambda: store.replay_chain(chains.ids[0], X), rounds=5)
    assert agree(store.replay_chain(chains.ids[0], X), replay_one(load, *plain, X))


@gate(
    "replay_new_chain",
    workload=f"the first replay_chain of a chain, which is compiled and proved, on 1,000 rows: {CHAIN}",
    baseline=PLAIN,
    size=1_000,
    seed=0,
    threads=1,
)
def test_replay_new_chain(measure: Measure, store: WorkspaceStore) -> None:
    chains, X = fill(store, 24, prefixes=24), spectra(1_000)
    store.flush()
    fresh, load = iter(chains.ids), chains.objects.__getitem__
    measure.ratio(
        lambda: replay_one(load, *chains.plain[0], X), lambda: store.replay_chain(next(fresh), X), rounds=20, warmup=2
    )
    assert agree(store.replay_chain(next(fresh), X), replay_one(load, *chains.plain[22], X))


def _against_onnx(measure: Measure, store: WorkspaceStore, rows: int, calls: int, rounds: int) -> None:
    """Both sides without SNV, which skl2onnx does not convert; ONNX Runtime in float64 and one thread."""
    chains, X = fill(store, 1, snv=False), spectra(rows)
    shared, folds = chains.plain[0]
    run = onnx_chain([chains.objects[one] for one in shared], [chains.objects[one] for one in folds.values()])
    measure.ratio(lambda: run(X), lambda: store.replay_chain(chains.ids[0], X), rounds=rounds, warmup=2, calls=calls)
    assert agree(store.replay_chain(chains.ids[0], X), run(X), within=1e-9)


def onnx_chain(steps: list[Any], models: list[Any]) -> Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]:
    """A chain as one float64 graph by skl2onnx; Savitzky-Golay, which it does not know, as the product with its
    matrix.
    """
    import onnxruntime
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import DoubleTensorType
    from sklearn.decomposition import PCA
    from sklearn.ensemble import VotingRegressor
    from sklearn.pipeline import make_pipeline

    filtering = PCA()
    filtering.components_, filtering.mean_, filtering.n_components_ = (
        np.asarray(steps[0].transform(np.eye(WIDTH))).T,
        np.zeros(WIDTH),
        WIDTH,
    )
    voting = VotingRegressor([(str(number), model) for number, model in enumerate(models)])
    voting.estimators_ = models
    graph = to_onnx(
        make_pipeline(filtering, *steps[1:], voting), initial_types=[("X", DoubleTensorType([None, WIDTH]))]
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda X: np.asarray(session.run(None, {"X": X})[0])[:, 0]


def _onnx_report(name: str, rows: int) -> pytest.MarkDecorator:
    workload = f"replay_chain on {rows:,} rows: Savitzky-Golay > MinMax > 5 PLS folds, 700 wavelengths"
    baseline = "ONNX Runtime, float64, the same chain as one graph"
    return report(
        name, workload=workload, baseline=baseline, size=rows, seed=0, threads=1, needs=("onnxruntime", "skl2onnx")
    )


@_onnx_report("replay_onnx_1_row", 1)
def test_replay_onnx_1_row(measure: Measure, store: WorkspaceStore) -> None:
    _against_onnx(measure, store, 1, 50, 15)
    assert measure.done


@_onnx_report("replay_onnx_1000_rows", 1_000)
def test_replay_onnx_1000_rows(measure: Measure, store: WorkspaceStore) -> None:
    _against_onnx(measure, store, 1_000, 3, 11)
    assert measure.done


@_onnx_report("replay_onnx_10000_rows", 10_000)
def test_replay_onnx_10000_rows(measure: Measure, store: WorkspaceStore) -> None:
    _against_onnx(measure, store, 10_000, 1, 9)
    assert measure.done
