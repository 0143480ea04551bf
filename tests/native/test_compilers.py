"""Each instruction set's kernels are compiled to its instructions, by every compiler at hand, without a warning."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "_native" / "row_map.c"
OPTIONS = ("-std=c11", "-fno-math-errno", "-Wall", "-Wextra", "-Werror")
COMPILERS = {
    "gcc": ("gcc",),
    "clang": ("clang",),
    "zig": (sys.executable, "-m", "ziglang", "cc", "-target", "x86_64-linux-gnu"),
    "llvm-mingw": ("clang", "--target=x86_64-w64-mingw32"),  # or any clang, beside the headers of mingw-w64
}


def _is_there(name: str) -> bool:
    """It starts, and has the headers of its system."""
    if shutil.which(COMPILERS[name][0]) is None:
        return False
    preprocessed = [*COMPILERS[name], "-E", "-x", "c", "-"]
    return subprocess.run(preprocessed, input=b"#include <stdlib.h>", capture_output=True).returncode == 0


@pytest.mark.skipif(shutil.which("objdump") is None, reason="needs objdump")
@pytest.mark.parametrize("optimised", ["-O0", pytest.param("-O2", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", COMPILERS)
def test_each_level_has_the_registers_of_its_instruction_set(name: str, optimised: str, tmp_path: Path) -> None:
    if not _is_there(name):
        pytest.skip(f"needs {name}")
    made = tmp_path / "row_map.o"
    subprocess.run([*COMPILERS[name], *OPTIONS, optimised, "-c", str(SOURCE), "-o", str(made)], check=True)
    listing = subprocess.run(["objdump", "-d", str(made)], check=True, capture_output=True, text=True).stdout
    if "x86-64" not in listing:
        pytest.skip("this machine has one level, the portable one")
    functions = dict(re.findall(r"<(\w+)>:\n(.*?)(?=\n\n|\Z)", listing, re.S))
    for variant, wanted, unwanted in (
        ("portable", "xmm", "ymm|zmm"),
        ("avx2", "ymm", "zmm"),
        ("avx512", "zmm", "never"),
    ):
        code = "".join(text for function, text in functions.items() if function.startswith(f"run_{variant}"))
        assert re.search(wanted, code), f"{variant} has no {wanted}"
        assert not re.search(unwanted, code), f"{variant} has {unwanted}"
