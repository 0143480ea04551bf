"""Workspaces of parallel writers, and how one absorbs another."""
