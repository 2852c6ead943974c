import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from avdata.pipeline import parts
from avdata.pipeline.arrow import to_table
from avdata.pipeline.check import check_manifest
from avdata.pipeline.manifest import SETTINGS, Manifest
from avdata.pipeline.parts import write_table
from avdata.pipeline.record import Clip, ContactEvent, Fingerprint
from tests.pipeline.clips import a_clip, assemble, write_parts

HIT = ContactEvent(
    t=0.5, t_audio=0.5, t_video=0.48, lag_ms=20.0, strength=1.0, confidence=0.5, x=0.5, y=0.5
)
EARLY = dataclasses.replace(HIT, t=0.1, t_audio=0.1, t_video=-0.4, lag_ms=500.0)
"""Seen before the clip begins: the sound of its source is late."""


@pytest.fixture
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Manifest:
    """Two sources, of which one is a copy and dark, and two clips of another; in two row groups."""
    monkeypatch.setattr(parts, "ROWS_TOGETHER", 2)
    manifest = Manifest(tmp_path)
    manifest.set_policy(None)
    prints = Fingerprint([k * 0x0123_4567_89AB_CDEF % 2**63 for k in range(1, 9)], [*range(9, 53)])
    clips = [
        dataclasses.replace(a_clip("a.mp4", luma_mean=0.01), fingerprint=prints),
        dataclasses.replace(a_clip("b.mp4"), fingerprint=prints),
        dataclasses.replace(a_clip("c.mp4", 4.0), events=[HIT, EARLY]),
        a_clip("c.mp4"),
    ]
    write_parts(manifest, clips, [])
    assemble(manifest, ["a.mp4", "b.mp4", "c.mp4"])
    return manifest


def changed(manifest: Manifest, change: Callable[[Clip], Clip]) -> list[str]:
    """Problems once some clips of the assembled table are others."""
    about = manifest.table().schema.metadata[SETTINGS]
    table = to_table(Clip, [change(clip) for clip in manifest.clips()])
    write_table(table.replace_schema_metadata({SETTINGS: about}), manifest.clips_file)
    return check_manifest(manifest)


def test_what_was_assembled_is_whole(manifest: Manifest) -> None:
    assert check_manifest(manifest) == []
    assert changed(manifest, lambda clip: clip) == []
    copies = {clip.source.uri: clip.duplicates for clip in manifest.clips()}
    assert copies["a.mp4"] is not None
    assert copies["b.mp4"] is not None
    assert copies["a.mp4"].copy_group == copies["b.mp4"].copy_group is not None
    assert (copies["a.mp4"].best, copies["b.mp4"].best) == (False, True)  # The other is dark.


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"end_s": 4.0, "events": []}, "ends before it starts"),
        ({"end_s": 12.0}, "lies beyond the source's end"),
        ({"status": "undecided"}, "its status is not what policy.yaml gives"),
        ({"status": "drop"}, "its status is not"),
        ({"reasons": ["frozen"]}, "its reasons is not"),
    ],
)
def test_a_clip_that_cannot_be_is_named(
    manifest: Manifest, changes: dict[str, Any], said: str
) -> None:
    found = changed(
        manifest,
        lambda clip: dataclasses.replace(clip, **changes) if clip.start_s == 4.0 else clip,
    )
    (line,) = found
    assert said in line
    assert "of c.mp4: " in line


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"t": 2.5, "t_audio": 2.5, "lag_ms": 2020.0}, "event outside itself"),
        ({"t_audio": -0.01, "lag_ms": -490.0}, "event outside itself"),
        ({"t_video": -4.5, "lag_ms": 5000.0}, "seen outside the source"),
        ({"t_video": 0.4}, "lag is not that of"),
    ],
)
def test_an_event_that_cannot_be_is_named(
    manifest: Manifest, changes: dict[str, float], said: str
) -> None:
    hit = dataclasses.replace(HIT, **changes)
    found = changed(
        manifest,
        lambda clip: dataclasses.replace(clip, events=[HIT, hit]) if clip.events else clip,
    )
    assert len(found) == 1
    assert said in found[0]


def test_two_best_copies_are_one_too_many(manifest: Manifest) -> None:
    def all_best(clip: Clip) -> Clip:
        assert clip.duplicates is not None
        return dataclasses.replace(clip, duplicates=dataclasses.replace(clip.duplicates, best=True))

    (line,) = changed(manifest, all_best)
    assert "of a.mp4: its duplicates.best is not what policy.yaml gives" in line


def test_a_clip_twice_and_a_source_without_any_are_named(manifest: Manifest) -> None:
    first = manifest.clips()[2].clip_id
    found = changed(
        manifest, lambda clip: dataclasses.replace(clip, clip_id=first) if clip.start_s else clip
    )
    assert f"clip {first}: 2 rows" in found
    for part in (manifest.root / "parts").iterdir():
        part.unlink()
    assert sum("neither clips nor a reason" in line for line in check_manifest(manifest)) == 3
