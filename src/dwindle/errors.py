"""Every way dwindle refuses: one class each, all under `DwindleError`."""

from __future__ import annotations


def shown(name: str) -> str:
    """A tensor's name fit for a line of text: quoted if it is empty or holds line breaks and the like."""
    return name if name and name.isprintable() else ascii(name)


class DwindleError(Exception):
    """Base of all errors dwindle raises on purpose. Its text is one line, fit to show a user."""


class FileError(DwindleError):
    """A `.dwz` file that cannot be trusted."""


class NotDwzError(FileError):
    """The first bytes are not those of a `.dwz` file."""


class VersionError(FileError):
    """A `.dwz` file of a version this package does not read."""


class TruncatedError(FileError):
    """The file ends before what its header announces, or goes on after it."""


class ChecksumError(FileError):
    """Bytes that do not match their CRC-32."""


class CorruptError(FileError):
    """Bytes with a right checksum that break a rule of the format: made by a broken or hostile writer."""


class BaseError(FileError):
    """A file of differences that is read without the checkpoint they were taken from, or with another."""


class CheckpointError(DwindleError):
    """A checkpoint that cannot be read, or holds what cannot be stored."""


class UnsafeCheckpointError(CheckpointError):
    """A checkpoint that only loads by running code stored inside it (a pickle)."""


class TensorError(DwindleError):
    """A tensor a stage cannot work on, by name: NaN or infinite weights, a wrong shape or dtype."""


class OutputError(DwindleError):
    """An output that cannot be written, or would overwrite something."""


class DataError(DwindleError):
    """A data set that is missing or damaged."""


class RecipeError(DwindleError):
    """A recipe with an unknown key or an impossible value."""


class RunError(DwindleError):
    """A run folder that does not belong to the recipe it is resumed with, or is damaged."""


class VerificationError(DwindleError):
    """A check that failed: what was decoded is not what was encoded, or not what it is compared with."""


class CalibrationError(DwindleError):
    """The inputs to calibrate with do not lead to outputs that can be compared."""


class SearchError(DwindleError):
    """A search that found no file as asked for; the text says what came nearest."""
