"""Rows that are not in the tables yet, and their way there."""
