"""Read frames from files of every supported format."""
