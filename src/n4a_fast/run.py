"""`python -m n4a_fast.run script.py [arguments]`: a nirs4all program, unchanged, on this package's store.

Runs the script, or with `-m` a module, as `python` itself would: same `sys.argv`, same
`sys.path[0]`, same `__main__`. Leaves everything else to `install()`.
"""

from __future__ import annotations

import os
import runpy
import sys

from n4a_fast.errors import StoreError
from n4a_fast.integrations.nirs4all import install

USAGE = "usage: python -m n4a_fast.run script.py [arguments]\n       python -m n4a_fast.run -m module [arguments]"


def main(arguments: list[str]) -> None:
    """Run the program that `arguments` name."""
    if not arguments or arguments[0] in ("-h", "--help") or arguments == ["-m"]:
        sys.exit(USAGE)
    try:
        install()
    except StoreError as error:
        sys.exit(f"n4a_fast.run: {error}")
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        sys.path[0] = os.getcwd()
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        return
    sys.argv = arguments
    sys.path[0] = os.path.dirname(os.path.abspath(arguments[0]))
    runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
