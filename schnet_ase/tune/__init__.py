"""A search over settings of network and training."""
