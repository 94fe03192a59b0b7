"""Summarize a data set in numbers and on a page; `schnet_ase.data.summary.picture` draws it."""

from schnet_ase.data.summary.findings import Finding, findings
from schnet_ase.data.summary.page import page
from schnet_ase.data.summary.summary import PASSES, Summary, summarize

__all__ = ["PASSES", "Finding", "Summary", "findings", "page", "summarize"]
