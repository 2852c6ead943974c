"""How many clips may fail, and which are tried again: in encoding, captioning and embedding.

One bad clip never stops a corpus. Where many fail the machine or the settings are at fault, and
shards of what is left would be another corpus than the one that was selected.
"""

from collections.abc import Sequence
from pathlib import Path

from avdata.errors import RunError
from avdata.pipeline.parts import TRANSIENT_STAGES
from avdata.pipeline.shards.index import FailedClip

JUDGED = 500
"""Clips of which the share is taken while fewer have been seen: a bad beginning may pass."""


def tried_again(failed: Sequence[FailedClip], retry_failed: bool) -> bool:
    """Whether a shard with these is made anew: with `retry_failed` for any."""
    return any(retry_failed or one.stage in TRANSIENT_STAGES for one in failed)


def require_decoded(
    root: Path, failed: int, seen: int, total: int, max_share: float, why: str
) -> None:
    """RunError when more than one clip and more than a share of those seen, of `total` in all,
    failed; `why` is what befell one of them.
    """
    if failed <= max(1, max_share * max(seen, min(total, JUDGED))):
        return
    raise RunError(
        f"{root}: {failed} of {seen} clips failed ({why}), more than "
        f"max_failed_share = {max_share:g}; mend the cause and run it again with retry_failed=true,"
        " or raise max_failed_share"
    )


def worded(stage: str, reason: str, detail: str) -> str:
    """One failure in a few words."""
    return " ".join(f"{stage}: {reason}: {detail}".split())[:200]
