"""Hostile inputs by the thousand, each from its seed: `python tests/fuzz/fuzzing.py --inputs 100000`.

Mutated artifacts, bundles, compiled chains, templates, logs and workspaces are read in child processes, under "none",
a list and the default, in memory where the system has a disk there. A child that dies, hangs, runs what a file says, or
raises what is no error of ours, is told with the seed that makes the same input again: `--seed 4711 --inputs 1`.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

from hostile import KINDS, MODES
from mutations import stored

SECONDS = 60  # for one input, on a busy machine
MEMORY = 4 * 2**30
IN_MEMORY = Path("/dev/shm")  # stores sync what they write


def drawn(dice: random.Random, only: str | None) -> tuple[str, str]:
    """Kind and mode of a seed's input, which are its first draws."""
    kind = only or dice.choices(list(KINDS), [weight for _, weight in KINDS.values()])[0]
    return kind, dice.choice(list(MODES))


def one(seed: int, root: Path, only: str | None = None) -> None:
    """The input of a seed, read in one mode."""
    dice = random.Random(seed)
    kind, mode = drawn(dice, only)
    KINDS[kind][0](dice, MODES[mode], root)


def read_all(seeds: range, root: Path, only: str | None, until: float) -> None:
    """Reads inputs until it is done, the time is over, or killed; the seed of each is told before it is read."""
    told = os.dup(1)
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    if "asan" not in os.environ.get("LD_PRELOAD", ""):  # a sanitizer asks for terabytes that it never touches
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    warnings.simplefilter("ignore")
    stored()
    for seed in seeds:
        if time.time() > until:
            break
        os.write(told, f"{seed}\n".encode())
        signal.alarm(SECONDS)
        try:
            one(seed, root, only)
        except BaseException:
            text = " | ".join(traceback.format_exc().splitlines()[-7:])
            os.write(told, f"! {seed} raises {text}\n".encode(errors="replace"))
        if (root / "mark").exists():
            os.write(told, f"! {seed} RAN\n".encode())
            (root / "mark").unlink()
    os._exit(0)


def fuzz(seeds: range, only: str | None = None, minutes: float = 60.0) -> tuple[range, list[str]]:
    """The seeds that were read in this time, and what went wrong; inputs are read in a new process after each that has
    ended one.
    """
    wrong: list[str] = []
    until, left = time.time() + 60 * minutes, seeds
    with tempfile.TemporaryDirectory(dir=IN_MEMORY if IN_MEMORY.is_dir() else None) as folder:
        while left:
            root = tempfile.mkdtemp(dir=folder)
            asked = ["--seed", str(left.start), "--inputs", str(len(left)), *(("--only", only) if only else ())]
            command = [sys.executable, __file__, "--child", root, "--until", str(until), *asked]
            last = left.start - 1
            with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
                assert child.stdout is not None
                for line in child.stdout.read().decode(errors="replace").splitlines():
                    if line.startswith("!"):
                        wrong.append(line)
                    else:
                        last = int(line)
            if not child.returncode:
                return range(seeds.start, last + 1), wrong
            if last < left.start:
                raise RuntimeError(f"the child ended with {child.returncode} before it read anything")
            ended = "HANGS" if child.returncode == -signal.SIGALRM else f"DIED with {child.returncode}"
            wrong.append(f"! {last} {ended}")
            left = range(last + 1, seeds.stop)
    return seeds, wrong


def counted(seeds: range, only: str | None) -> str:
    """How many inputs of each kind there are among seeds."""
    found = Counter(drawn(random.Random(seed), only)[0] for seed in seeds)
    return ", ".join(f"{kind} {number}" for kind, number in found.most_common())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=KINDS)
    parser.add_argument("--minutes", type=float, default=60.0, help="end then, and tell how far it came")
    parser.add_argument("--child", type=Path, help="read them here, in this folder")
    parser.add_argument("--until", type=float, help="when the child ends")
    asked_for = parser.parse_args()
    all_seeds = range(asked_for.seed, asked_for.seed + asked_for.inputs)
    if asked_for.child is not None:
        read_all(all_seeds, asked_for.child, asked_for.only, asked_for.until)
    began = time.monotonic()
    read, found = fuzz(all_seeds, asked_for.only, asked_for.minutes)
    print("\n".join(found))
    took = f"{time.monotonic() - began:.0f} s"
    print(f"seeds {read.start} to {read.stop - 1} ({counted(read, asked_for.only)}): {len(found)} wrong, {took}")
    sys.exit(bool(found))
