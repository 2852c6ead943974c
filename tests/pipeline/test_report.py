import dataclasses
import json
from html.parser import HTMLParser
from pathlib import Path

import av
import numpy as np
import pytest

from avdata.errors import UsageError
from avdata.pipeline.manifest import Manifest
from avdata.pipeline.record import Clip, Quarantined
from avdata.pipeline.report.curves import smoothed
from avdata.pipeline.report.gallery import NUM_CLIPS, chosen
from avdata.pipeline.report.report import report
from avdata.pipeline.report.samples import NUM_PICTURES
from avdata.pipeline.selection import funnel
from tests.pipeline.clips import EVENT, a_clip, assemble, write_parts

HOSTILE = "<script>alert('$x$')</script>"
VOID = {"meta", "br", "img", "link", "hr", "input"}


class Page(HTMLParser):
    """Table rows by their first cell, what the page refers to, and whether its tags match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: dict[str, list[str]] = {}
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.ids: list[str] = []
        self.charts: list[str] = []
        """What is said of each to those who cannot see it."""
        self._open: list[str] = []
        self._row: list[str] = []
        self.words = ""
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        found = dict(attrs)
        self.ids += [value for name, value in attrs if name == "id" and value]
        self.charts += [found["aria-label"] or ""] if tag == "svg" else []
        self.links += [found[key] or "" for key in ("src", "href", "xlink:href") if key in found]
        if tag == "tr":
            self._row = []
        elif tag in ("td", "th"):
            self._row.append("")
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag
        if tag == "tr" and self._row:
            self.rows.setdefault(self._row[0], self._row)

    def handle_data(self, data: str) -> None:
        self.words += data
        if {"td", "th"} & set(self._open):
            self._row[-1] += data


def a_manifest(root: Path, clips: list[Clip], failed: list[Quarantined] | None = None) -> Manifest:
    manifest = Manifest(root)
    manifest.set_policy(None)
    write_parts(manifest, clips, failed or [])
    names = {clip.source.uri for clip in clips} | {one.uri for one in failed or []}
    assemble(manifest, sorted(names))
    return manifest


def varied() -> list[Clip]:
    return [
        a_clip("kept.mp4"),
        dataclasses.replace(a_clip("hit.mp4", contact=True), events=[EVENT]),
        a_clip("large.mp4", motion="large", captions=None),
        a_clip("dark.mp4", luma_mean=0.01),
        a_clip("dark_silent.mp4", luma_mean=0.02, audio=None),
        a_clip("still.mp4", motion="static", flags=["decode_errors"]),
    ]


def a_run(root: Path, audio: bool = True) -> Path:
    root.mkdir(parents=True)
    lines = [
        {
            "step": step,
            "loss": 1.9 / (step + 1),
            "loss_video": 1 / (step + 1),
            "loss_audio": 0.9 / (step + 1) if audio else None,
            "learning_rate": 1e-4,
            "samples_per_second": 10.0,
            "data_wait_share": 0.1,
        }
        for step in range(40)
    ]
    lines[-1]["val_loss_video"] = 0.75
    (root / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return root


def read(path: Path) -> Page:
    return Page(path.read_text())


def test_numbers_are_the_manifests(tmp_path: Path) -> None:
    manifest = a_manifest(tmp_path / "m", varied())
    page = read(report([manifest.root], tmp_path / "report.html"))
    counts = funnel(manifest.table())
    assert page.rows["all"][1:3] == [str(counts.pop("clips")), str(counts.pop("keep"))]
    assert counts == {"too_dark": 2, "silent": 1, "static": 1, "decode_errors": 1}
    for reason, count in counts.items():
        assert page.rows[reason][2] == str(count)
    # Of the two dark clips one is silent, too.
    assert page.rows["too_dark"][4] == "1"
    assert page.rows["frozen"][2] == "0"


def test_times_and_charts_are_the_manifests(tmp_path: Path) -> None:
    def late(name: str, lag_ms: float, luma: float = 0.5) -> Clip:
        event = dataclasses.replace(EVENT, lag_ms=lag_ms)
        return dataclasses.replace(a_clip(name, luma_mean=luma, contact=True), events=[event])

    clips = [*varied(), late("late.mp4", 40.0), late("early.mp4", -20.0, luma=0.02)]
    seconds = clips[0].end_s
    manifest = a_manifest(tmp_path / "m", clips)
    page = read(report([manifest.root], tmp_path / "report.html"))
    assert f"{4 * seconds:.1f} s, 50.0 % of clips" in page.words
    assert page.rows["too_dark"][5] == f"{3 * seconds:.1f} s"
    assert page.rows["small"][1:4] == ["6", "3", f"{3 * seconds:.1f} s"]
    assert page.rows["all"][4:6] == ["3", "2"]
    (luma,) = (said for said in page.charts if "by mean luma" in said)
    assert luma.endswith("from 0.01 to 0.5: 4 kept, 4 dropped")
    (loud,) = (said for said in page.charts if "by dBFS" in said)
    assert loud.endswith(": 4 kept, 3 dropped")  # Of one nothing is known.
    (lags,) = (said for said in page.charts if said.startswith("Histogram of events by ms"))
    assert lags.endswith("from -20 to 40: 2 kept, 1 dropped")


def test_a_stricter_threshold_leaves_less(tmp_path: Path) -> None:
    clips = [a_clip(f"{n}.mp4", luma_mean=0.1 * n) for n in range(1, 6)]
    page = read(report([a_manifest(tmp_path / "m", clips).root], tmp_path / "report.html"))
    (left,) = (said for said in page.charts if "technical.luma_mean at least" in said)
    seconds = clips[0].end_s
    assert left == (
        "seconds kept over technical.luma_mean at least: "
        f"kept from {5 * seconds:.4g} to {seconds:.4g}"
    )


def test_every_quarantined_file_is_listed_with_its_reason(tmp_path: Path) -> None:
    failed = [
        Quarantined(f"/raw/{n}.mp4", 10, "probe", "not_media", f"detail {n}", 1) for n in range(3)
    ]
    manifest = a_manifest(tmp_path / "m", varied(), failed)
    page = read(report([manifest.root], tmp_path / "report.html"))
    for n in range(3):
        row = page.rows[f"{n}.mp4"]
        assert row[1:5] == ["not_media", "probe", f"detail {n}", "/raw"]


def test_the_page_needs_nothing_outside_itself(tmp_path: Path) -> None:
    a_manifest(tmp_path / "out/manifest", varied())
    a_run(tmp_path / "out/t2av")
    path = report([tmp_path / "out"], tmp_path / "report.html")
    page = read(path)
    assert not [word for word in ("http://", "https://", "@import") if word in path.read_text()]
    assert {"script", "link", "iframe"}.isdisjoint(page.tags)
    assert len(set(page.ids)) == len(page.ids)
    inside = {f"#{one}" for one in page.ids}
    assert all(link.startswith("data:") or link in inside for link in page.links)


def test_same_inputs_same_bytes(tmp_path: Path) -> None:
    a_manifest(tmp_path / "out/manifest", varied())
    a_run(tmp_path / "out/t2av")
    first, second = (report([tmp_path / "out"], tmp_path / name) for name in ("a.html", "b.html"))
    assert first.read_bytes() == second.read_bytes()


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    hostile = HOSTILE.replace("/", "_")
    failed = [Quarantined(f"/raw/{hostile}", 1, "probe", HOSTILE, HOSTILE, 1)]
    a_manifest(tmp_path / "out/m", [*varied(), a_clip(hostile)], failed)
    runs = [a_run(tmp_path / "out" / name) for name in (hostile, "\N{CJK UNIFIED IDEOGRAPH-65E5}")]
    (runs[0] / "run.json").write_text(json.dumps({HOSTILE: {"x": HOSTILE}}))
    page = read(report([tmp_path / "out"], tmp_path / "report.html"))
    assert "script" not in page.tags
    assert page.rows[hostile][1:4:2] == [HOSTILE, HOSTILE]
    assert page.rows[f"{HOSTILE}.x"] == [f"{HOSTILE}.x", HOSTILE]


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    manifest = a_manifest(tmp_path / "m", varied())
    manifest.quarantine_file.unlink()
    (manifest.root / "policy.yaml").unlink()
    run = tmp_path / "run"
    run.mkdir()
    (run / "metrics.jsonl").write_text('{"step": 1, "loss": NaN}\n{"step": 2, "lo')
    page = read(report([manifest.root, run], tmp_path / "report.html"))
    for words in (
        "quarantine.parquet is missing",
        "The policy's conditions cannot be shown",
        "The source is no longer where it was",
        "1 x line of metrics.jsonl could not be read",
        "1 x step had a loss that is not finite",
        "no readable run.json",
        "No samples in this run's folder",
    ):
        assert words in page.words


def test_a_manifest_without_clips_and_one_where_nothing_varies(tmp_path: Path) -> None:
    for name, clips in (("none", []), ("one", [a_clip()]), ("mute", [a_clip(audio=None)])):
        manifest = a_manifest(tmp_path / name, clips)
        page = read(report([manifest.root], tmp_path / "report.html"))
        assert ("No source gave a clip" in page.words) == (not clips)


def test_losses_of_runs_side_by_side(tmp_path: Path) -> None:
    runs = [a_run(tmp_path / "t2av"), a_run(tmp_path / "t2v", audio=False)]
    page = read(report(runs, tmp_path / "report.html"))
    # By run the joint loss is the first row: step, count, first, last, mean of the last four.
    late = np.mean([1.9 / (step + 1) for step in range(36, 40)])
    assert page.rows["t2v"] == [
        "t2v", "loss", "39", "40", "1.9000", "0.0475", f"{late:.4f}", "0.0475",
    ]  # fmt: skip
    assert "0.7500" in page.words


def test_samples_are_embedded_with_their_captions(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    a_video(run / "samples/0.mp4")
    (run / "samples/0.json").write_text(json.dumps({"captions": {"video": "a & b"}}))
    page = read(report([run], tmp_path / "report.html"))
    assert any(link.startswith("data:video/mp4;base64,") for link in page.links)
    assert "a & b" in page.words


def test_a_sample_is_shown_beside_its_true_clip(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    a_video(run / "samples/0.mp4")
    a_video(run / "samples/clips/abc.mp4")
    a_video(tmp_path / "secret.mp4")
    told = {"captions": {"video": "a ball"}, "true": "clips/abc.mp4"}
    (run / "samples/0.json").write_text(json.dumps(told))
    page = read(report([run], tmp_path / "report.html"))
    kinds = [link.split(";")[0] for link in page.links if link.startswith("data:")]
    assert kinds.count("data:image/jpeg") == 2 * NUM_PICTURES
    assert kinds.count("data:video/mp4") == 2
    assert "True clip" in page.words
    # What is not in the samples' folder is nobody's clip.
    for name in ("clips/gone.mp4", "../../secret.mp4", 3):
        (run / "samples/0.json").write_text(json.dumps({**told, "true": name}))
        page = read(report([run], tmp_path / "report.html"))
        assert "True clip" not in page.words
        assert "a ball" in page.words


def test_the_gallery_shows_frames_of_a_source_that_is_there(tmp_path: Path) -> None:
    source = a_video(tmp_path / "there.mp4")
    manifest = a_manifest(tmp_path / "m", [a_clip(str(source)), a_clip("gone.mp4")])
    page = read(report([manifest.root], tmp_path / "report.html"))
    assert sum(link.startswith("data:image/jpeg;base64,") for link in page.links) == 4
    assert page.words.count("no longer where it was") == 1


def test_the_gallery_takes_some_of_each_kind_in_any_order(tmp_path: Path) -> None:
    clips = [
        a_clip(f"{n}.mp4", luma_mean=luma, motion=motion, contact=contact)
        for n, (luma, motion, contact) in enumerate(
            [(0.5, "small", True), (0.5, "large", False), (0.0, "small", False)] * 10
        )
    ]
    table = a_manifest(tmp_path / "m", clips).table()
    picked = chosen(table)
    assert len(picked) == NUM_CLIPS
    assert sum(clip.labels.contact for clip in picked) == NUM_CLIPS // 3
    assert sum(clip.status == "drop" for clip in picked) == NUM_CLIPS // 3
    assert chosen(table.take(list(range(len(table)))[::-1])) == picked


def test_smoothing_keeps_a_constant_and_ignores_gaps() -> None:
    assert smoothed([3.0, np.nan, 3.0, 3.0], 3).tolist() == [3.0] * 4


@pytest.mark.parametrize("name", ["absent", "empty"])
def test_a_folder_of_nothing_known_is_a_usage_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=name) as caught:
        report([tmp_path / name], tmp_path / "report.html")
    assert "ingest, encode or train" in str(caught.value)
    assert not (tmp_path / "report.html").exists()


def a_video(path: Path) -> Path:
    """Three seconds of grey."""
    path.parent.mkdir(exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=24)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        picture = np.full((48, 64, 3), 128, np.uint8)
        for _ in range(72):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path
