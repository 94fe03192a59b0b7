"""Watching a run: which frames the ensemble does not know."""
