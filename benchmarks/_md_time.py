"""Dynamics that is timed, for monitor_overhead.py and step_parts.py."""

from schnet_ase.stability.times import start as start
