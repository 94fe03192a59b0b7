"""Monitoring of a run: find the frames on which the ensemble is uncertain."""
