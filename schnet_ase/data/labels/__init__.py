"""Find the labels in a file and their units, and check whether they can be trusted."""
