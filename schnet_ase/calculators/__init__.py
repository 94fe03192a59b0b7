"""The ASE calculators."""
