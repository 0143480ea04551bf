"""Ctrl-C in a session: the call it hits ends, everything before it is kept once, and the store goes on."""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
from helpers import DEADLINE, begin_sweep, count, program
from sampling import some

from n4a_fast import WorkspaceStore
from n4a_fast.engine.connection import client
from n4a_fast.engine.connection.waiting import CallLock, Patience, released
from n4a_fast.platform import interrupts
from n4a_fast.platform.interrupts import Uninterrupted

SESSION = Path(__file__).with_name("interrupted_session.py")


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """Parallel test runs ignore Ctrl-C in their workers."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("seed", some(range(4), 1))
def test_a_session_goes_on_after_interrupts_at_any_moment(tmp_path: Path, seed: int) -> None:
    session = program(SESSION, tmp_path, seed, 40)
    output, errors = session.communicate(timeout=DEADLINE)
    assert (session.returncode, errors) == (0, "")
    predictions, logs = map(int, output.split())
    assert predictions > 40
    with WorkspaceStore(tmp_path) as store:
        assert (count(store, "predictions"), count(store, "logs")) == (predictions, logs)


def test_a_long_query_ends_with_the_interrupt(store: WorkspaceStore) -> None:
    store.begin_run("kept", {}, [])
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        try:
            timer.start()
            store.sql("SELECT sum(a.range * b.range) FROM range(100000) a, range(100000) b")
        finally:
            timer.join()
    assert count(store, "runs") == 1


def test_a_wait_for_the_calls_of_others_that_is_interrupted_leaves_the_lock_to_them(store: WorkspaceStore) -> None:
    """The interrupt arrives when the lock was had and Python had not gone on yet, as it does on a busy machine."""
    inside, interrupted = threading.Event(), threading.get_ident()

    def holds() -> None:
        with store.transaction():
            inside.set()
            while sys._current_frames()[interrupted].f_code.co_filename != interrupts.__file__:
                time.sleep(0.001)
            _thread.interrupt_main()

    other = threading.Thread(target=holds)
    other.start()
    inside.wait()
    with pytest.raises(KeyboardInterrupt):
        store.flush()
    other.join(DEADLINE)
    after = threading.Thread(target=store.flush, daemon=True)
    after.start()
    after.join(DEADLINE)
    assert not after.is_alive()


def test_however_often_a_wait_for_the_file_is_interrupted_its_lock_is_had_again(tmp_path: Path) -> None:
    lock, begun, interrupted = CallLock(tmp_path, Patience(1.0)), threading.Event(), threading.get_ident()

    def holds() -> None:
        with lock:
            begun.set()
            while sys._current_frames()[interrupted].f_code is not CallLock.acquire.__code__:
                time.sleep(0.001)
            for _ in range(3):
                _thread.interrupt_main()
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.05)

    other = threading.Thread(target=holds)
    with pytest.raises(KeyboardInterrupt), lock, lock, released(lock):
        other.start()
        begun.wait()
    other.join(DEADLINE)
    assert not lock.is_mine


@pytest.mark.long
def test_an_interrupt_while_the_file_is_let_go_is_no_other_error_and_close_can_be_repeated(tmp_path: Path) -> None:
    """As a second Ctrl-C, which nothing keeps waiting, in whatever statement; DuckDB makes a RuntimeError of it."""

    def interrupt(_: int, frame: FrameType | None) -> None:
        if frame is not None and frame.f_code.co_filename == client.__file__:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    columns: dict[str, Any] = {"model_name": [f"m{number}" for number in range(2000)], "dataset_name": "corn"}
    columns |= dict.fromkeys(("val_score", "test_score", "train_score"), 0.1) | {"metric": "rmse", "n_samples": 3}
    columns |= {"model_class": "PLS", "fold_id": "0", "partition": "val", "task_type": "regression", "n_features": 3}
    try:
        for number in range(10):
            store = WorkspaceStore(tmp_path / str(number))
            saved = store.save_predictions(
                {"pipeline_id": begin_sweep(store).pipeline, "chain_id": None, **columns}, y_pred=np.zeros((2000, 100))
            )
            signal.setitimer(signal.ITIMER_REAL, 3e-3, 1e-3)
            with suppress(KeyboardInterrupt):
                store.close()
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            store.close()
            with WorkspaceStore(tmp_path / str(number)) as again:
                assert count(again, "predictions") == len(saved)
    finally:
        signal.signal(signal.SIGALRM, before)


def test_an_interrupt_waits_for_the_end_of_the_outermost_block() -> None:
    reached = []
    with pytest.raises(KeyboardInterrupt), Uninterrupted():
        with Uninterrupted():
            os.kill(os.getpid(), signal.SIGINT)
            reached.append("inner")
        reached.append("outer")
    assert reached == ["inner", "outer"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_interrupt_does_not_wait() -> None:
    reached = []
    with pytest.raises(KeyboardInterrupt), Uninterrupted():
        os.kill(os.getpid(), signal.SIGINT)
        reached.append("after the first")
        os.kill(os.getpid(), signal.SIGINT)
        reached.append("after the second")
    assert reached == ["after the first"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_other_threads_leave_the_handler_alone() -> None:
    seen = []

    def work() -> None:
        with Uninterrupted():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]
