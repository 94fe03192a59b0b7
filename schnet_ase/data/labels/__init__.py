"""Which numbers of a file are labels, in which units, and whether they can be trusted."""
