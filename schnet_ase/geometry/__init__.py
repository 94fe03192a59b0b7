"""Arrays, systems, neighbour lists and graphs: what a network computes on."""
