"""What `avdata verify` says of a manifest whose rows cannot be."""

import dataclasses
from pathlib import Path

import pytest

from avdata.pipeline.check import check_manifest
from avdata.pipeline.manifest import Manifest
from avdata.pipeline.record import Clip
from tests.pipeline.clips import EVENT, a_clip, assemble, write_parts


def problems(root: Path, clip: Clip) -> list[str]:
    manifest = Manifest(root)
    manifest.set_policy(None)
    write_parts(manifest, [clip], [])
    assemble(manifest, [clip.source.uri])
    return check_manifest(manifest)


def struck(*times: float) -> Clip:
    events = [dataclasses.replace(EVENT, t=t) for t in times]
    return dataclasses.replace(a_clip(contact=True), events=events)


@pytest.mark.parametrize(
    ("clip", "said"),
    [
        (a_clip(), None),
        (struck(0.0, 1.0, 2.06), None),
        (struck(1.0, 2.07), "has an event outside itself"),
        (struck(-0.01), "has an event outside itself"),
        (a_clip(start_s=7.9), None),  # The last frame of a clip may be half missing.
        (a_clip(start_s=8.0), "lies beyond the source's end at 10.000 s"),
        (dataclasses.replace(a_clip(start_s=1.0), end_s=0.9), "ends at 0.9 before it starts at 1"),
    ],
)
def test_spans_and_events_lie_where_they_can(tmp_path: Path, clip: Clip, said: str | None) -> None:
    found = problems(tmp_path, clip)
    if said is None:
        assert found == []
    else:
        (line,) = [line for line in found if said in line]
        assert clip.clip_id in line
        assert clip.source.uri in line
