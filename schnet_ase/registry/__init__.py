"""The registry from names to files: cards, checkpoints, the index and installation."""
