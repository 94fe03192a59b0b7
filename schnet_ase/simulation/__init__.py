"""Molecular dynamics and relaxation, guarded against structures that fly apart."""
