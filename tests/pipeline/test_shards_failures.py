"""Shards that lack clips which could not be decoded."""

from functools import partial
from pathlib import Path

import pytest

from avdata.errors import RunError
from avdata.pipeline.record import Clip
from avdata.pipeline.shards.dataset import open_dataset
from avdata.pipeline.shards.failures import require_decoded
from avdata.pipeline.shards.index import FailedClip
from avdata.pipeline.shards.writer import is_done, write_dataset, write_shard
from tests.pipeline.test_shards import SPECS, a_sample, plans_of


def lost(stage: str, clip: Clip) -> FailedClip:
    return FailedClip(clip.clip_id, stage, "failed", "")


@pytest.mark.parametrize("stage", ["memory", "deadline", "read", "decode", "probe"])
def test_a_failure_that_may_pass_leaves_its_shard_to_do(tmp_path: Path, stage: str) -> None:
    plan = plans_of()[0]
    first, *rest = plan.clips
    write_shard(tmp_path, plan, [lost(stage, first), *map(a_sample, rest)])
    assert is_done(tmp_path, plan) == (stage in ("decode", "probe"))
    assert not is_done(tmp_path, plan, retry_failed=True)
    write_dataset(tmp_path, SPECS, [plan], {})  # It may fail for ever, and the others be of use.
    assert open_dataset(tmp_path).num_failed == 1


@pytest.mark.parametrize(("num_lost", "share", "whole"), [(1, 0.0, True), (2, 0.4, False)])
def test_more_failures_than_are_allowed_make_no_dataset(
    tmp_path: Path, num_lost: int, share: float, whole: bool
) -> None:
    plan = plans_of()[0]
    samples = [lost("decode", clip) for clip in plan.clips[:num_lost]]
    write_shard(tmp_path, plan, [*samples, *map(a_sample, plan.clips[num_lost:])])
    if whole:
        write_dataset(tmp_path, SPECS, [plan], {}, share)
    else:
        with pytest.raises(RunError, match=r"2 of 4 clips .*max_failed_share = 0\.4"):
            write_dataset(tmp_path, SPECS, [plan], {}, share)
    assert (tmp_path / "dataset.json").exists() == whole


def test_a_job_stops_before_its_end_only_for_more_than_a_bad_beginning(tmp_path: Path) -> None:
    allowed = partial(require_decoded, tmp_path, total=100_000, max_share=0.1, why="decode")
    allowed(failed=40, seen=40)
    allowed(failed=100, seen=1000)
    for failed, seen in ((60, 60), (101, 1000)):
        with pytest.raises(RunError, match=f"{failed} of {seen} clips"):
            allowed(failed=failed, seen=seen)
