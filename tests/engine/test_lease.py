"""Who gets a turn at the turnstile, who waits, and what the killed leave behind: nothing."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from helpers import DEADLINE, child, finish, kill, read_line

from n4a_fast.engine.lease import Turnstile
from n4a_fast.platform import locks
from n4a_fast.platform.choice import system

ENTER = """
import sys
from pathlib import Path
from n4a_fast.engine.lease import Turnstile
root = Path(sys.argv[1])
turnstile = Turnstile(root, root / "queue")
print("waiting", flush=True)
print(turnstile.enter(60, shared=sys.argv[2] == "shared"), flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "queue").mkdir()
    return tmp_path


def turnstile_at(root: Path) -> Turnstile:
    return Turnstile(root, root / "queue")


def until_awaited(turnstile: Turnstile) -> None:
    while not turnstile.is_awaited():
        os.sched_yield()


def test_an_interrupt_with_the_end_of_a_look_leaves_a_turnstile_that_works(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(descriptor: int) -> None:
        monkeypatch.undo()
        system.unlock(descriptor)
        raise KeyboardInterrupt

    first, second = turnstile_at(root), turnstile_at(root)
    monkeypatch.setattr(locks.system, "unlock", interrupted)
    with pytest.raises(KeyboardInterrupt):
        first.is_awaited()
    assert not first.is_awaited()
    assert first.enter(0, shared=False)
    first.leave()
    assert second.enter(0, shared=False)


def test_one_is_let_in_and_the_next_when_it_leaves(root: Path) -> None:
    first, second = turnstile_at(root), turnstile_at(root)
    assert first.enter(0, shared=False)
    assert not second.enter(0.01, shared=False)
    first.leave()
    assert second.enter(DEADLINE, shared=False)  # the wait that was given up may have it for a moment


def test_a_wait_that_was_given_up_takes_no_turn_later(root: Path) -> None:
    first, second, third = (turnstile_at(root) for _ in range(3))
    assert first.enter(0, shared=False)
    assert not second.enter(0.01, shared=False)
    first.leave()
    assert third.enter(DEADLINE, shared=False)


def test_readers_share_a_turn_and_a_writer_waits_for_all_of_them(root: Path) -> None:
    reader, other, writer = (turnstile_at(root) for _ in range(3))
    assert reader.enter(0, shared=True)
    assert other.enter(0, shared=True)
    assert not writer.enter(0.01, shared=False)
    reader.leave()
    assert not writer.enter(0.01, shared=False)
    other.leave()
    assert writer.enter(DEADLINE, shared=False)  # the waits that were given up above may have it for a moment


def test_a_reader_waits_behind_the_writer_that_came_before_it(root: Path) -> None:
    reader, late = turnstile_at(root), turnstile_at(root)
    assert reader.enter(0, shared=True)
    writer = child(ENTER, root, "alone")
    assert read_line(writer) == "waiting"
    until_awaited(reader)
    assert not late.enter(0.01, shared=True)
    reader.leave()
    assert read_line(writer) == "True"
    writer.communicate("go\n", timeout=DEADLINE)
    assert late.enter(DEADLINE, shared=True)


def test_the_one_in_turn_sees_who_waits(root: Path) -> None:
    turnstile = turnstile_at(root)
    assert turnstile.enter(0, shared=False)
    assert not turnstile.is_awaited()
    waiter = child(ENTER, root, "alone")
    until_awaited(turnstile)
    turnstile.leave()
    assert finish(waiter).split() == ["waiting", "True"]
    assert turnstile.enter(DEADLINE, shared=False)
    assert not turnstile.is_awaited()


def test_killed_holders_and_waiters_are_in_nobodys_way(root: Path) -> None:
    turnstile = turnstile_at(root)
    holder = child(ENTER, root, "alone")
    assert (read_line(holder), read_line(holder)) == ("waiting", "True")
    waiter = child(ENTER, root, "alone")
    assert read_line(waiter) == "waiting"
    until_awaited(turnstile)
    kill(waiter)
    kill(holder)
    assert turnstile.enter(DEADLINE, shared=False)
    assert not turnstile.is_awaited()


def test_a_forked_child_neither_holds_nor_frees_its_parents_turn(root: Path) -> None:
    turnstile, other = turnstile_at(root), turnstile_at(root)
    assert turnstile.enter(0, shared=False)
    go, done = os.pipe(), os.pipe()
    process = os.fork()
    if process == 0:
        turnstile.forget_after_fork()
        os.write(done[1], b"1")
        os.read(go[0], 1)
        os._exit(0)
    os.read(done[0], 1)
    assert not other.enter(0.01, shared=False)
    turnstile.leave()
    assert other.enter(5.0, shared=False)  # the child, still alive, would hold it for longer
    os.write(go[1], b"1")
    os.waitpid(process, 0)
    for descriptor in (*go, *done):
        os.close(descriptor)


def test_all_of_many_threads_get_their_turn(root: Path) -> None:
    seen: list[int] = []

    def work(number: int) -> None:
        turnstile = turnstile_at(root)
        for _ in range(20):
            assert turnstile.enter(DEADLINE, shared=False)
            seen.append(number)
            assert seen[-1] == number
            turnstile.leave()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert sorted(seen) == sorted([0, 1, 2, 3] * 20)


def test_what_cannot_be_locked_lets_everyone_in(tmp_path: Path) -> None:
    first, second = (Turnstile(tmp_path / "nowhere", tmp_path / "nowhere" / "queue") for _ in range(2))
    assert first.enter(0, shared=False)
    assert second.enter(0, shared=False)
    assert not first.is_awaited()
    first.leave()


def test_a_thread_that_waits_is_not_asked_about_itself(root: Path) -> None:
    """Another one may have the file without a turn: past its deadline it tries once."""
    holder, waiting = turnstile_at(root), turnstile_at(root)
    assert holder.enter(0.0, shared=False)
    thread = threading.Thread(target=waiting.enter, args=(DEADLINE,), kwargs={"shared": False})
    thread.start()
    until_awaited(holder)
    assert not waiting.is_awaited()
    assert not waiting.enter(0.0, shared=False)
    waiting.leave()
    holder.leave()
    thread.join()
    assert waiting.is_ours
    assert not holder.enter(0.0, shared=False)
    waiting.leave()
    assert holder.enter(0.0, shared=False)
    for each in (holder, waiting):
        each.close()


def test_a_turnstile_that_is_closed_while_a_thread_waits_at_it_lets_that_one_in(root: Path) -> None:
    holder, waiting = turnstile_at(root), turnstile_at(root)
    assert holder.enter(0.0, shared=False)
    entered: list[bool] = []
    thread = threading.Thread(target=lambda: entered.append(waiting.enter(DEADLINE, shared=False)))
    thread.start()
    until_awaited(holder)
    waiting.close()
    holder.leave()
    thread.join()
    assert entered == [True]
    assert not holder.enter(0.0, shared=False)
    waiting.close()
    assert holder.enter(0.0, shared=False)
    holder.close()
