"""Imported as Python starts, where N4A_FAST_INSTALL is set: once nirs4all is imported, it uses this package's store.

Not part of the package: programs without nirs4all import nothing of it, and at this moment what it needs
may not be on the path yet.
"""

from __future__ import annotations

import importlib.util
import sys


class _UntilImported:
    """Sees the import of nirs4all, and leaves it to the finder of `install`."""

    def find_spec(self, fullname: str, path: object, target: object = None) -> object:
        if fullname != "nirs4all":
            return None
        sys.meta_path.remove(self)
        from n4a_fast.integrations.nirs4all import install_when_imported

        install_when_imported()
        return importlib.util.find_spec(fullname)


sys.meta_path.insert(0, _UntilImported())
