"""Compute energies, forces and stress from a geometry, with either engine."""
