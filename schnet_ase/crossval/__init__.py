"""k-fold cross-validation: the members of an ensemble, wherever they are trained."""
