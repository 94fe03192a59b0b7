"""The weights of other programs and for other programs."""
