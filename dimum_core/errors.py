"""What can go wrong because of an input, each in one clear sentence: what is wrong, where, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DimumError(Exception):
    """Base of every error that a user can mend; the command line prints it without a traceback."""


class DataError(DimumError, ValueError):
    """A data set is missing, damaged or not what it says it is."""


class CheckpointError(DimumError, ValueError):
    """A checkpoint is missing, damaged, or was made with other settings than asked for."""


class NoJudge(CheckpointError):
    """No judge is shipped for the images that a pipeline draws."""


class ModelError(DimumError, ValueError):
    """A model of a kind, or with parts, that is not supported."""


class TrainingError(DimumError, RuntimeError):
    """A training cannot start or go on."""


class FileError(DimumError, RuntimeError):
    """A file or a folder cannot be written."""


class SettingError(DimumError, ValueError):
    """A setting of the wrong kind, or out of its range."""


class UnknownName(DimumError, KeyError):
    """A name that is not among the choices."""

    def __init__(self, kind: str, name: object, choices: Iterable[str]):
        self.kind, self.name, self.choices = kind, name, tuple(choices)
        super().__init__(kind, name, self.choices)  # by which pickle and copy make it again, on the way back from a worker, say

    def __str__(self) -> str:
        close = difflib.get_close_matches(str(self.name), self.choices, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        shown = ", ".join(self.choices[:20]) + (f" and {len(self.choices) - 20} more" if len(self.choices) > 20 else "")
        return f"There is no {self.kind} {brief(self.name)}.{hint} Choices: {shown}."


def brief(value: object, length: int = 80) -> str:
    """A value on one line, cut short: a message should name what it refuses, whatever that is."""
    text = " ".join(repr(value).split())
    return text if len(text) <= length else f"{text[:length]}..."
