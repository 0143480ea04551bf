"""Artifacts: objects as bytes, bytes as content-addressed files, files as rows with references."""
