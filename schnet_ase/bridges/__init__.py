"""Interfaces by which other simulation programs call the calculators; each module imports the program's own package."""
