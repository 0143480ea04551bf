"""Compile the extensions for the systems that this one is not: python tools/cross_compile.py [TARGET ...]

With zig's clang (package ziglang), every warning an error. It shows that the sources are in order for a system; it does
not show that they run there. Targets are in the terms of zig; for Windows, which has headers of Python of its own,
`tools/windows.sh` builds and runs.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

SOURCES = Path(__file__).parents[1] / "src" / "_native"
TARGETS = ("x86_64-linux-gnu", "aarch64-linux-gnu", "x86_64-macos", "aarch64-macos")
STRICT = ("-Wall", "-Wextra", "-Werror")
# what Cython writes is not ours to mend
GENERATED = (
    "-Wno-unused-parameter",
    "-Wno-unused-function",
    "-Wno-missing-field-initializers",
    "-Wno-cast-function-type",
)
OPTIONS = ("-std=c11", "-O3", "-fno-math-errno", "-DPy_LIMITED_API=0x030B0000")


def compile_all(target: str, folder: Path) -> list[str]:
    """Compile every source for `target`; what the compiler said of those that failed."""
    cython = [sys.executable, "-m", "cython", "-3", "--output-file"]
    generated = []
    for source in sorted(SOURCES.glob("*.pyx")):
        generated.append(folder / f"{source.stem}.c")
        subprocess.run([*cython, str(generated[-1]), str(source)], check=True)
    complaints = [_compile(target, source, folder, STRICT) for source in sorted(SOURCES.glob("*.c"))]
    complaints += [_compile(target, source, folder, (*STRICT, *GENERATED)) for source in generated]
    return [text for text in complaints if text]


def _compile(target: str, source: Path, folder: Path, warnings: tuple[str, ...]) -> str:
    compiler = [sys.executable, "-m", "ziglang", "cc", "-target", target, *OPTIONS, *warnings]
    headers = [f"-I{SOURCES}", "-isystem", sysconfig.get_path("include")]
    done = subprocess.run(
        [*compiler, *headers, "-c", str(source), "-o", str(folder / f"{source.stem}.o")],
        capture_output=True,
        text=True,
        check=False,
    )
    return f"{source.name} for {target}:\n{done.stderr}" if done.returncode else ""


def main(targets: list[str]) -> None:
    for target in targets or TARGETS:
        with tempfile.TemporaryDirectory() as folder:
            complaints = compile_all(target, Path(folder))
        print(f"{target}: {'compiled' if not complaints else 'failed'}", flush=True)
        if complaints:
            sys.exit("\n".join(complaints))


if __name__ == "__main__":
    main(sys.argv[1:])
