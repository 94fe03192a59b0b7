"""k-fold cross-validation, which trains the members of an ensemble in processes, on a GPU or on a cluster."""
