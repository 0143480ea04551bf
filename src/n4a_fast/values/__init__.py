"""Ids, JSON text and checked arguments: what every other folder is written in."""
