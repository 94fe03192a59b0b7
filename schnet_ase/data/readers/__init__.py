"""Files of every format to frames."""
