"""Search settings of the network and the training."""
