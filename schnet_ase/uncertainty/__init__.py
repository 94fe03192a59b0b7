"""From the spread of an ensemble to half-widths that hold the true error."""
