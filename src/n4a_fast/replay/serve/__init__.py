"""Replay for one workspace: one chain, many chains, what is remembered between calls."""
