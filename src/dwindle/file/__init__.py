"""The .dwz container."""

from dwindle.file.ledger import Ledger, ledger
from dwindle.file.reader import Archive
from dwindle.file.writer import Written, write

__all__ = ["Archive", "Ledger", "Written", "ledger", "write"]
