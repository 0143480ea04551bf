"""Which releases of nirs4all this package works inside.

Those named here are run in the tests. Another release of 1.x is taken if its classes offer nothing that
ours do not; what they offer is looked at when its store is replaced.
"""

from __future__ import annotations

import importlib.metadata
import sys

from n4a_fast.errors import UnsupportedVersionError
from n4a_fast.integrations.nirs4all.hosting import differences, is_of_1x

PACKAGE = "nirs4all"
TESTED = ("0.7.1", "1.0.4", "1.2.1", "1.4.10")
_ARRAYS = "nirs4all.pipeline.storage.array_store"


def found_version() -> str | None:
    """Of the nirs4all that is imported, or else the one that is installed; None without any."""
    loaded = getattr(sys.modules.get(PACKAGE), "__version__", None)
    return str(loaded) if loaded is not None else metadata_version()


def metadata_version() -> str | None:
    """Of the nirs4all that is installed; None without any."""
    try:
        return importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        return None


def require_release(version: str | None) -> None:
    """UnsupportedVersionError unless this may be a release that can be worked inside."""
    if version not in TESTED and not (version or "").startswith("1."):
        raise UnsupportedVersionError(PACKAGE, version, TESTED)


def require_surface(original: type) -> None:
    """UnsupportedVersionError, which says what differs, unless the store of this release can be replaced."""
    version = found_version()
    require_release(version)
    if version is not None and version.startswith("0."):
        return
    arrays = getattr(sys.modules.get(_ARRAYS), "ArrayStore", None)
    found = differences(original, arrays) if is_of_1x(original) else ["WorkspaceStore.array_store is missing"]
    if found:
        raise UnsupportedVersionError(PACKAGE, version, TESTED, "; ".join(found))
