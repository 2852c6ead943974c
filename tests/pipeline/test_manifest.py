import dataclasses
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from avdata.errors import RunError, UsageError, YieldCollapsed
from avdata.pipeline import manifest as manifests
from avdata.pipeline import parts
from avdata.pipeline.manifest import SETTINGS, CaptionRow, Manifest
from avdata.pipeline.record import Captions, Clip, Fingerprint, Quarantined
from avdata.pipeline.selection import funnel, require_kept
from tests.pipeline.clips import CAPTIONS, a_clip, assemble, write_parts


def a_failure(uri: str, reason: str = "not_media") -> Quarantined:
    return Quarantined(uri, 7, "probe", reason, "because", 1)


def a_manifest(root: Path) -> Manifest:
    """Three sources: two clips, one dark clip, a failure."""
    manifest = Manifest(root)
    manifest.set_policy(None)
    clips = [a_clip("b.mp4", 4.0, captions=None), a_clip("b.mp4", captions=None)]
    clips += [a_clip("a.mp4", luma_mean=0.01, captions=None)]
    write_parts(manifest, clips, [a_failure("c.mp4")])
    assemble(manifest, ["b.mp4", "a.mp4", "c.mp4"])
    return manifest


def assembled(manifest: Manifest) -> tuple[bytes, bytes]:
    return manifest.clips_file.read_bytes(), manifest.quarantine_file.read_bytes()


def test_every_source_is_in_clips_or_in_quarantine(tmp_path: Path) -> None:
    manifest = a_manifest(tmp_path)
    clips = {clip.source.uri for clip in manifest.clips()}
    failed = {row.uri for row in manifest.quarantined()}
    assert clips == {"a.mp4", "b.mp4"}
    assert failed == {"c.mp4"}
    assert manifest.unaccounted().num_rows == 0


def test_what_is_neither_measured_nor_failed_for_good_is_unmeasured(tmp_path: Path) -> None:
    manifest = a_manifest(tmp_path)
    passing = dataclasses.replace(a_failure("d.mp4"), stage="deadline")
    write_parts(manifest, [], [passing, passing])
    assemble(manifest, ["a.mp4", "b.mp4", "c.mp4", "d.mp4", "e.mp4"])
    left = manifest.unmeasured(manifest.sources(), "settings", 16.0)
    assert left["uri"].to_pylist() == ["d.mp4", "e.mp4"]
    assert {row.uri: row.attempts for row in manifest.quarantined()} == {"c.mp4": 1, "d.mp4": 2}
    assert manifest.unaccounted()["uri"].to_pylist() == ["e.mp4"]
    with pytest.raises(RunError, match=r"1 have neither clips nor .*e\.mp4 among them"):
        manifest.require_accounted(manifest.sources(), "settings")
    assert len(manifest.unmeasured(manifest.sources(), "other settings", 16.0)) == 5


@pytest.mark.parametrize("reason", parts.STARVED)
def test_what_may_be_want_of_memory_is_tried_again_with_more(tmp_path: Path, reason: str) -> None:
    manifest = a_manifest(tmp_path)
    starved = dataclasses.replace(a_failure("d.mp4", reason), stage="decode", memory_gib=2.0)
    write_parts(manifest, [], [starved])
    assemble(manifest, ["d.mp4", "c.mp4"])
    for memory_gib, again in ((1.0, []), (2.0, []), (2.5, ["d.mp4"])):
        left = manifest.unmeasured(manifest.sources(), "settings", memory_gib)
        assert left["uri"].to_pylist() == again
    assert {row.uri: row.memory_gib for row in manifest.quarantined()} == {
        "c.mp4": None,
        "d.mp4": 2.0,
    }


def test_clips_lie_in_order_of_name_and_time(tmp_path: Path) -> None:
    order = [(clip.source.uri, clip.start_s) for clip in a_manifest(tmp_path).clips()]
    assert order == [("a.mp4", 0.0), ("b.mp4", 0.0), ("b.mp4", 4.0)]


def test_assembling_again_gives_the_same_bytes_in_any_order(tmp_path: Path) -> None:
    manifest = a_manifest(tmp_path)
    first = assembled(manifest)
    manifest.reassemble()
    assert assembled(manifest) == first
    assemble(manifest, ["c.mp4", "a.mp4", "b.mp4"])
    assert assembled(manifest) == first
    manifest.clips_file.unlink()
    manifest.reassemble()
    assert assembled(manifest) == first


def test_how_much_is_held_at_once_changes_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = Manifest(tmp_path)
    manifest.set_policy(None)
    prints = Fingerprint([k * 0x0123_4567_89AB_CDEF % 2**63 for k in range(1, 9)], [*range(9, 53)])
    names = [f"{name}.mp4" for name in "gbdfaec"]
    clips = [a_clip(name, start, captions=None) for name in names for start in (0.0, 4.0)]
    copied = [dataclasses.replace(clip, fingerprint=prints) for clip in clips[::6]]
    write_parts(manifest, [*copied, *(clip for clip in clips if clip not in clips[::6])], [])
    assemble(manifest, names)
    ids = sorted(clip.clip_id for clip in clips)
    manifest.write_captions([CaptionRow(one, CAPTIONS) for one in ids[::2]])
    manifest.reassemble()
    whole = manifest.table()
    assert len(manifest.clips()) == len(clips)
    assert 0 < sum(clip.captions is not None for clip in manifest.clips()) < len(clips)
    assert whole["status"].to_pylist().count("drop") == len(copied) - 1
    for files, rows in ((1, 2), (2, 3), (3, 1), (512, 5)):
        monkeypatch.setattr(manifests, "FILES_AT_ONCE", files)
        monkeypatch.setattr(parts, "ROWS_TOGETHER", rows)
        manifest.reassemble()
        assert manifest.table().equals(whole, check_metadata=True)
        written = assembled(manifest)
        manifest.decide_again()
        assert assembled(manifest) == written
        sizes = pq.read_metadata(manifest.clips_file)
        many = [sizes.row_group(k).num_rows for k in range(sizes.num_row_groups)]
        assert set(many[:-1]) <= {rows}
    assert sorted(path.name for path in tmp_path.glob("*.tmp-*")) == []


def test_to_decide_again_is_to_assemble_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "ROWS_TOGETHER", 2)  # More than one row group.
    manifest = a_manifest(tmp_path)
    file = tmp_path / "bright.yaml"
    file.write_text("name: bright\nrules:\n  dim: technical.luma_mean < 0.9\n")
    manifest.set_policy(file)
    manifest.decide_again()
    decided = assembled(manifest)
    assert funnel(manifest.table()) == {"clips": 3, "keep": 0, "dim": 3}
    manifest.reassemble()
    assert assembled(manifest) == decided
    assert manifest.settings() is not None


def test_a_policy_that_drops_the_best_copy_keeps_the_next_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "ROWS_TOGETHER", 1)  # Copies are in several row groups.
    manifest = Manifest(tmp_path)
    manifest.set_policy(None)
    prints = Fingerprint([k * 0x0123_4567_89AB_CDEF % 2**63 for k in range(1, 9)], [*range(9, 53)])
    clips = []
    for name, height in (("a.mp4", 360), ("b.mp4", 720), ("c.mp4", 180)):
        clip = a_clip(name, captions=None)
        media = dataclasses.replace(clip.media, height=height)
        clips.append(dataclasses.replace(clip, media=media, fingerprint=prints))
    write_parts(manifest, clips, [])
    assemble(manifest, ["a.mp4", "b.mp4", "c.mp4"])
    first = assembled(manifest)
    assert [clip.source.uri for clip in manifest.clips("keep")] == ["b.mp4"]
    small = tmp_path / "small.yaml"
    small.write_text("rules:\n  one: duplicates.best == false\n  tall: media.height > 400\n")
    manifest.set_policy(small)
    manifest.decide_again()
    decided = assembled(manifest)
    assert [clip.source.uri for clip in manifest.clips("keep")] == ["a.mp4"]
    manifest.reassemble()
    assert assembled(manifest) == decided
    manifest.set_policy(None)
    manifest.decide_again()
    assert assembled(manifest) == first


def test_what_cannot_be_decided_again_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = a_manifest(tmp_path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("avdata.pipeline.manifest.write_batches", full)
        with pytest.raises(OSError, match="No space left"):
            manifest.decide_again()
    whole = manifest.table()
    old = whole.drop_columns(["sync"])
    pq.write_table(old, manifest.clips_file)
    for use in (manifest.decide_again, manifest.table, manifest.clips, manifest.settings):
        with pytest.raises(RunError, match="made by another version"):
            use()
    events = old.schema.field("events").with_type(pa.list_(pa.struct([("t", pa.float64())])))
    empty = pa.array([[]] * len(old), events.type)
    at = whole.schema.get_field_index("events")
    pq.write_table(whole.set_column(at, events, empty), manifest.clips_file)
    with pytest.raises(RunError, match="made by another version"):
        manifest.require_current()


def test_captions_of_other_measurements_are_left_out(tmp_path: Path) -> None:
    manifest = a_manifest(tmp_path)
    ids = [clip.clip_id for clip in manifest.clips()]
    manifest.write_captions([CaptionRow(one, CAPTIONS) for one in ids])
    manifest.reassemble()
    assert {clip.captions for clip in manifest.clips()} == {CAPTIONS}
    table = pq.read_table(tmp_path / "captions.parquet")
    other = table.replace_schema_metadata({SETTINGS: b"of other settings"})
    pq.write_table(other, tmp_path / "captions.parquet")
    manifest.reassemble()
    assert {clip.captions for clip in manifest.clips()} == {None}


def test_a_part_of_an_older_version_lacks_columns_and_one_of_a_newer_is_refused(
    tmp_path: Path,
) -> None:
    manifest = a_manifest(tmp_path)
    whole = assembled(manifest)
    for file in (tmp_path / "parts").iterdir():
        older = pq.read_table(file).drop_columns(["semantics", "audio"])
        pq.write_table(older, file)
    manifest.reassemble()
    assert {clip.audio for clip in manifest.clips()} == {None}
    newer = pq.read_table(file)
    pq.write_table(newer.append_column("taste", [["sweet"] * len(newer)]), file)
    with pytest.raises(RunError, match=r"parts/.*another version .*columns taste.*delete it"):
        manifest.reassemble()
    pq.write_table(newer.drop_columns(["motion"]), file)  # Which no clip is without.
    with pytest.raises(RunError, match=r"another version .*motion"):
        manifest.reassemble()
    assert whole[1] == assembled(manifest)[1]


def test_a_source_that_was_taken_away_takes_its_clips_along(tmp_path: Path) -> None:
    manifest = a_manifest(tmp_path)
    assemble(manifest, ["a.mp4"])
    assert {clip.source.uri for clip in manifest.clips()} == {"a.mp4"}
    assert manifest.quarantined() == []


def test_one_content_has_all_its_names_and_a_failure_a_row_for_each(tmp_path: Path) -> None:
    manifest = a_manifest(tmp_path)
    names = ["z/b.mp4", "a/b.mp4", "c.mp4", "d.mp4"]
    assemble(manifest, names, ["b.mp4", "b.mp4", "c.mp4", "c.mp4"])
    assert {clip.source.uri for clip in manifest.clips()} == {"a/b.mp4"}
    assert [clip.source.uris for clip in manifest.clips()] == [["a/b.mp4", "z/b.mp4"]] * 2
    assert [clip.start_s for clip in manifest.clips()] == [0.0, 4.0]
    assert [(row.uri, row.reason) for row in manifest.quarantined()] == [
        ("c.mp4", "not_media"),
        ("d.mp4", "not_media"),
    ]


def test_captions_join_by_id_and_survive_assembly(tmp_path: Path) -> None:
    manifest = a_manifest(tmp_path)
    rows = [
        CaptionRow(clip.clip_id, dataclasses.replace(CAPTIONS, video=f"{clip.start_s}"))
        for clip in manifest.clips("keep")
    ]
    manifest.write_captions(rows[::-1])
    manifest.reassemble()
    found = {clip.clip_id: clip.captions for clip in manifest.clips()}
    assert {key: one for key, one in found.items() if one} == {
        row.clip_id: row.captions for row in rows
    }
    assert sum(one is None for one in found.values()) == 1
    again = assembled(manifest)
    manifest.write_captions(rows)
    manifest.reassemble()
    assert assembled(manifest) == again


def test_captions_of_unknown_clips_and_none_at_all_do_no_harm(tmp_path: Path) -> None:
    manifest = a_manifest(tmp_path)
    before = manifest.clips()
    manifest.write_captions([CaptionRow("no such clip", Captions("v", "a", "m", "0"))])
    manifest.reassemble()
    assert manifest.clips() == before
    manifest.write_captions([])
    manifest.reassemble()
    assert manifest.clips() == before


def test_another_policy_decides_again_and_the_first_gives_the_first_bytes(tmp_path: Path) -> None:
    manifest = a_manifest(tmp_path / "m")
    first = assembled(manifest)
    measured = [measurements(clip) for clip in manifest.clips()]
    assert [clip.status for clip in manifest.clips()] == ["drop", "keep", "keep"]
    strict = tmp_path / "strict.yaml"
    strict.write_text("name: strict\nrules:\n  late: start_s > 1\n")
    manifest.set_policy(strict)
    manifest.reassemble()
    assert [clip.status for clip in manifest.clips()] == ["keep", "keep", "drop"]
    assert [measurements(clip) for clip in manifest.clips()] == measured
    manifest.set_policy(None)
    manifest.reassemble()
    assert assembled(manifest) == first


def measurements(clip: Clip) -> Clip:
    return dataclasses.replace(clip, status="undecided", reasons=[])


def test_the_funnel_accounts_for_every_clip(tmp_path: Path) -> None:
    counts = funnel(a_manifest(tmp_path).table())
    assert counts == {"clips": 3, "keep": 2, "too_dark": 1}


def test_nothing_kept_is_a_collapse_that_says_what_to_do(tmp_path: Path) -> None:
    manifest = a_manifest(tmp_path / "m")
    assert len(require_kept(manifest)) == 2
    nothing = tmp_path / "nothing.yaml"
    nothing.write_text("name: nothing\nrules:\n  all: start_s >= 0\n")
    manifest.set_policy(nothing)
    manifest.reassemble()
    with pytest.raises(YieldCollapsed, match=r"none of 3 clips.*avdata select"):
        require_kept(manifest)


def test_no_clip_at_all_is_a_manifest_too(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path)
    manifest.set_policy(None)
    write_parts(manifest, [], [a_failure("c.mp4")])
    assemble(manifest, ["c.mp4"])
    assert manifest.clips() == []
    assert funnel(manifest.table()) == {"clips": 0, "keep": 0}


def test_a_folder_that_is_no_manifest_is_named(tmp_path: Path) -> None:
    for root, what in ((tmp_path, "no manifest"), (tmp_path / "missing", "no such folder")):
        manifest = Manifest(root)
        for use in (manifest.table, manifest.clips, manifest.quarantined, manifest.reassemble):
            with pytest.raises(UsageError, match=what) as caught:
                use()
            assert str(root) in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_the_digest_follows_the_content(tmp_path: Path) -> None:
    manifest = a_manifest(tmp_path)
    first = manifest.digest()
    assemble(manifest, ["a.mp4"])
    assert manifest.digest() != first
    assemble(manifest, ["a.mp4", "b.mp4", "c.mp4"])
    assert manifest.digest() == first
