"""Tables and figures of what a run came to."""

from dwindle.report.layers import LayerRow, layer_table, total_row
from dwindle.report.paper import PAPER, PaperNetwork, PaperRow

__all__ = ["PAPER", "LayerRow", "PaperNetwork", "PaperRow", "layer_table", "total_row"]
