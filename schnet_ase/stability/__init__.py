"""How an entry fares in dynamics: whether its bonds hold, when it is flagged, and how long a step takes."""
