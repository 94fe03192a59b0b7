"""Convert the weights of other programs, and export models to other programs."""
