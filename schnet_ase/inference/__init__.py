"""From a geometry to energies, forces and stress, whichever engine computes them."""
