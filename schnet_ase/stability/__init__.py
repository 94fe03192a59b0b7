"""Stability of an entry in dynamics: whether bonds break, when the run is flagged, and the time per step."""
