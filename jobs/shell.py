"""Between the command line and the library: results, errors, exit codes."""

import json
import signal
import sys
from typing import Any

import typer

from avdata.errors import AvdataError

INTERRUPTED = 128 + signal.SIGINT


class Result:
    """What a command prints: lines for people, or one JSON object for machines."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json

    def line(self, text: str) -> None:
        """For people."""
        if not self._as_json:
            typer.echo(text)

    def end(self, result: dict[str, Any]) -> None:
        """For machines."""
        if self._as_json:
            typer.echo(json.dumps(result))


def run_app(app: typer.Typer, arguments: list[str]) -> int:
    """Runs a command; an error of ours is one line and its exit code, a bug is a traceback.

    typer itself leaves with 2 when the command line cannot be understood.
    """
    debug = "--debug" in arguments
    try:
        app(args=[one for one in arguments if one != "--debug"], prog_name="avdata")
    except (AvdataError, OSError) as error:
        if debug:
            raise
        sys.stderr.write(f"avdata: {error}\n")
        return error.exit_code if isinstance(error, AvdataError) else 1
    except SystemExit as leaving:  # So does typer at Ctrl-C, without a word.
        if leaving.code == INTERRUPTED:
            sys.stderr.write("avdata: stopped; run it again to go on\n")
        raise
    return 0
