"""Compiled leaves: no SQL, no policy, no paths."""
