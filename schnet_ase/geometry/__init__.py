"""Arrays, systems, neighbour lists and graphs, the input of a network."""
