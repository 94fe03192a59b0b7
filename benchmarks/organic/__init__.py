"""Molecules and frames for a potential of organic molecules, labelled with GFN2-xTB."""
