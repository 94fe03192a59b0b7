"""Molecular dynamics and geometry optimization, guarded against structures that fly apart."""
