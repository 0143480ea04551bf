"""The module of the system that this process runs on."""

import sys

if sys.platform == "win32":
    from n4a_fast.platform import windows as system
else:
    from n4a_fast.platform import posix as system

__all__ = ["system"]
