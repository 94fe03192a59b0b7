"""Atomic files, progress and figures."""
