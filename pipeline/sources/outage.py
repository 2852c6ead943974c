"""One file that cannot be read costs itself; many in a row are the machine's or the network's."""

from dataclasses import dataclass

from avdata.errors import MediaError, RunError

OF_THE_FILE = ("changed", "too_large_to_fetch", "file_name", "not_a_file")
OF_A_LIST = ("missing",)
"""Its files may have been gone for long."""


def outage(error: MediaError) -> str | None:
    """What is to be said of a failure that may be no file's fault, else None."""
    if error.stage not in ("list", "read") or error.reason in OF_THE_FILE:
        return None
    return None if error.stage == "list" and error.reason in OF_A_LIST else str(error)


@dataclass
class InARow:
    """Of failures; `most` of them, one after another, stop the job."""

    most: int
    count: int = 0

    def tell(self, uri: str, why: str | None) -> None:
        """What became of one source. RunError when it is one too many."""
        self.count = 0 if why is None else self.count + 1
        if self.count >= self.most:
            raise RunError(
                f"{uri}: the last of {self.count} sources in a row that could not be read ({why}); "
                "see to the disk or the network, then run it again to go on from here, or raise "
                "max_failures_in_a_row"
            )
