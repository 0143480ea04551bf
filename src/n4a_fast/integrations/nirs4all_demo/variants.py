"""One real sweep through nirs4all, the same for the demo, the tests and the numbers in docs/nirs4all.md.

5 scatter corrections, 2 filters and 10 sizes of PLS make 100 variants, each with 5 folds, on 300
made spectra of 1,076 channels. Owns the spectra, the pipeline and the clock around a store's
methods and its threads. Imports nothing of n4a_fast, so that it also runs where nirs4all's own store does:

    python sweep.py WORKSPACE [--scatters 5] [--filters 2] [--sizes 10] [--jobs 1] [--seed 0] [--engine legacy]

prints seconds of wall and CPU time, and the store's share of them, as JSON. The engine is nirs4all 1.x's choice.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

SAMPLES, CHANNELS, TRAINING = 300, 1076, 240


@dataclass(frozen=True, slots=True)
class Size:
    """How much of the sweep is run."""

    scatters: int = 5
    filters: int = 2
    sizes: int = 10
    jobs: int = 1
    seed: int = 0
    engine: str = ""

    @property
    def variants(self) -> int:
        return self.scatters * self.filters * self.sizes


@dataclass(slots=True)
class Clock:
    """Time spent in a store's public methods, nested calls counted once, and CPU time of the threads that it starts."""

    wall: float = 0.0
    cpu: float = 0.0
    threads: float = 0.0
    calls: dict[str, tuple[int, float]] = field(default_factory=dict)
    depth: int = 0

    def counted(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        """The method, its time added here."""

        @wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            if self.depth:
                return method(*args, **kwargs)
            self.depth = 1
            wall, cpu = time.perf_counter(), time.thread_time()
            try:
                return method(*args, **kwargs)
            finally:
                self.depth = 0
                wall, cpu = time.perf_counter() - wall, time.thread_time() - cpu
                self.wall, self.cpu = self.wall + wall, self.cpu + cpu
                count, seconds = self.calls.get(name, (0, 0.0))
                self.calls[name] = count + 1, seconds + wall

        return call

    def counted_block(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        """The method that gives a block, with the time of its begin and its end added here."""

        @contextmanager
        def call(*args: Any, **kwargs: Any) -> Iterator[Any]:
            block = method(*args, **kwargs)
            value = self.counted(name, block.__enter__)()
            leave = self.counted(name, block.__exit__)
            try:
                yield value
            except BaseException:
                if not leave(*sys.exc_info()):
                    raise
            else:
                leave(None, None, None)

        return call


@contextmanager
def time_in(*classes: type) -> Iterator[Clock]:
    """Let a clock run in the methods of stores and their parts that are called from outside."""
    clock = Clock()
    libraries = _Libraries()
    with ExitStack() as counting:
        for each in classes:
            counting.enter_context(_counted(each, clock))
        try:
            yield clock
        finally:
            clock.threads = libraries.others()


_CALLED_FROM_OUTSIDE = ("__init__", "_fetch_pl", "_fetch_one", "_execute_with_retry")


@contextmanager
def _counted(store: type, clock: Clock) -> Iterator[None]:
    names = [
        name
        for name in dir(store)
        if (name in _CALLED_FROM_OUTSIDE or not name.startswith("_")) and callable(getattr(store, name))
    ]
    own = {name: vars(store)[name] for name in names if name in vars(store)}
    for name in names:
        if not isinstance(own.get(name), classmethod | staticmethod) and name != "open_readonly":
            count = clock.counted_block if name == "transaction" else clock.counted
            setattr(store, name, count(name, getattr(store, name)))
    try:
        yield
    finally:
        for name in names:
            if name in own:
                setattr(store, name, own[name])
            elif name in vars(store):
                delattr(store, name)


class _Libraries:
    """Threads that are none of the store's: the calling one, those that are there now (BLAS), and Polars' pool, which
    spins while it waits.
    """

    def __init__(self) -> None:
        self._known = set(_threads())
        self._start = self._others()

    def others(self) -> float:
        """Seconds of CPU time, until now, of all other threads, those that have ended included."""
        return self._others() - self._start

    def _others(self) -> float:
        if not self._known:
            return 0.0
        theirs = sum(
            seconds for name, seconds in _threads().items() if name in self._known or name[1].startswith("polars")
        )
        return max(0.0, time.process_time() - theirs)


def _threads() -> dict[tuple[str, str], float]:
    """CPU seconds of each thread of this process by id and name; Linux alone tells them, elsewhere there are none."""
    found = {}
    for folder in Path("/proc/self/task").glob("*"):
        with suppress(OSError):  # a thread that has ended since
            name, taken = (folder / "comm").read_text("utf-8"), (folder / "schedstat").read_text("utf-8").split()[0]
            found[folder.name, name.strip()] = int(taken) / 1e9
    return found


def spectra(seed: int = 0) -> tuple[Any, Any]:
    """Spectra of three constituents with scatter, a sloping baseline and noise, and the share of the first: (300, 1076)
    and (300,).
    """
    rng = np.random.default_rng(seed)
    shares, channels = rng.uniform(0.1, 1.0, (SAMPLES, 3)), np.linspace(0.0, 1.0, CHANNELS)
    bands = [sum(np.exp(-(((channels - centre) / 0.04) ** 2)) for centre in rng.uniform(0.0, 1.0, 6)) for _ in range(3)]
    scatter, offset, slope = (
        rng.normal(1.0, 0.1, (SAMPLES, 1)),
        rng.normal(0.0, 0.05, (SAMPLES, 1)),
        rng.normal(0.0, 0.05, (SAMPLES, 1)),
    )
    noise = rng.normal(0.0, 0.002, (SAMPLES, CHANNELS))
    return scatter * (shares @ np.asarray(bands)) + offset + slope * channels + noise, shares[:, 0]


def pipeline(size: Size) -> list[Any]:
    """The sweep as nirs4all takes it."""
    from nirs4all.operators import transforms
    from sklearn.cross_decomposition import PLSRegression
    from sklearn.model_selection import KFold
    from sklearn.preprocessing import MinMaxScaler

    scatters = [
        transforms.StandardNormalVariate(),
        transforms.MultiplicativeScatterCorrection(),
        transforms.Detrend(),
        transforms.RobustStandardNormalVariate(),
        None,
    ]
    filters = [transforms.SavitzkyGolay(), transforms.Gaussian()]
    training = {"train_params": {"n_jobs": size.jobs}} if size.jobs > 1 else {}
    models = [{"model": PLSRegression(count), **training} for count in range(1, size.sizes + 1)]
    return [
        MinMaxScaler(),
        {"_or_": scatters[: size.scatters]},
        {"_or_": filters[: size.filters]},
        KFold(5, shuffle=True, random_state=0),
        {"_or_": models},
    ]


def run_sweep(workspace: str, size: Size, **options: Any) -> Any:
    """Run the sweep into a workspace; nirs4all's result. One BLAS thread: more make fits this small slower."""
    import nirs4all
    from threadpoolctl import threadpool_limits

    if size.engine:
        options["engine"] = size.engine
    X, y = spectra(size.seed)
    with threadpool_limits(limits=1):
        return nirs4all.run(
            pipeline(size),
            (X, y, {"train": TRAINING}),
            name="sweep",
            workspace_path=workspace,
            **{"verbose": 0, **options},
        )


def timed_sweep(workspace: str, size: Size) -> dict[str, Any]:
    """Run the sweep with whatever store nirs4all uses; the seconds, and the store's share of wall and CPU time."""
    import nirs4all  # noqa: F401  # its import is no part of the sweep
    from nirs4all.pipeline.storage.workspace_store import WorkspaceStore

    with time_in(WorkspaceStore, *_parts(WorkspaceStore)) as clock:
        wall, cpu = time.perf_counter(), time.process_time()
        result = run_sweep(workspace, size)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    slowest = sorted(clock.calls.items(), key=lambda item: -item[1][1])
    return {
        "store": f"{WorkspaceStore.__module__}.{WorkspaceStore.__qualname__}",
        "variants": size.variants,
        "predictions": result.num_predictions,
        "wall": wall,
        "store_wall": clock.wall,
        "cpu": cpu,
        "store_cpu": clock.cpu + clock.threads,
        "store_threads": clock.threads,
        "calls": dict(slowest[:12]),
    }


def _parts(store: Any) -> list[type]:
    """The class that keeps the arrays of this class of stores, where it is one of its own."""
    if not hasattr(store, "array_store"):
        return []
    with TemporaryDirectory() as folder:
        probe = store(Path(folder))
        arrays = type(probe.array_store)
        probe.close()
    return [arrays]


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Run one real sweep through nirs4all and tell the store's share of the time."
    )
    parser.add_argument("workspace")
    for name, default in (("scatters", 5), ("filters", 2), ("sizes", 10), ("jobs", 1), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--engine", default="")
    given = vars(parser.parse_args())
    print(json.dumps(timed_sweep(given.pop("workspace"), Size(**given))))


if __name__ == "__main__":
    main()
