"""How a process that can name why it fails tells the command that started it: by a file.

Imports nothing of torch, so that a process that is started again after such an error ends at once.
"""

import os
from pathlib import Path

from avdata import storage
from avdata.errors import AvdataError, RunError, UsageError

WORD = "AVDATA_LAST_WORD"
"""The variable that has the file's name."""


def has_spoken() -> bool:
    """Whether a training process has ended with an error that it could name."""
    return WORD in os.environ and Path(os.environ[WORD]).exists()


def leave_word(error: AvdataError) -> None:
    """Called by a training process before it ends."""
    if WORD in os.environ:
        speak(error, Path(os.environ[WORD]))


def speak(error: AvdataError, word: Path) -> None:
    """Leaves word of an error, for `spoken`."""
    storage.write_json(word, {"message": str(error), "exit_code": error.exit_code})


def spoken(word: Path) -> AvdataError:
    """The error that a process left word of."""
    told = storage.read_json(word)
    return (UsageError if told["exit_code"] == UsageError.exit_code else RunError)(told["message"])
