"""nirs4all keeps its workspaces in stores of this package: `install()`, and what its releases ask of a store."""

from n4a_fast.integrations.nirs4all.installing import install, install_when_imported, is_installed, uninstall

__all__ = ["install", "install_when_imported", "is_installed", "uninstall"]
