"""Names to files: cards, checkpoints, the index and installation."""
