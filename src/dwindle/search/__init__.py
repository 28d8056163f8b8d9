"""Searching for the settings of a compression: under a bound on the score, or for a size."""

from dwindle.search.entry import compress
from dwindle.search.find import MAX_PASSES, search

__all__ = ["MAX_PASSES", "compress", "search"]
