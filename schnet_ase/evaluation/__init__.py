"""Errors, reliability and calibration of models on labelled frames."""
