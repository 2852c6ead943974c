"""Captions by a model behind a real HTTP server that behaves, misbehaves, or is gone."""

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avdata.encoders.captioner import SAID, Question
from avdata.encoders.endpoint import Endpoint
from avdata.encoders.multimodal_lm import MultimodalLM
from avdata.errors import RunError, UsageError, YieldCollapsed
from avdata.jobs import caption as job
from avdata.jobs.caption import CaptionCounts
from avdata.jobs.caption_config import CaptionConfig
from avdata.jobs.engine import Engine
from avdata.jobs.ingest import ingest
from avdata.pipeline.captions import TemplateCaptions
from avdata.pipeline.manifest import Manifest
from avdata.pipeline.measure.source import IngestConfig
from avdata.pipeline.record import Clip
from avdata.pipeline.shards.decoders import DecodeLimits
from tests.encoders.captioners import qwen2_audio
from tests.jobs.films import run
from tests.pipeline.media import RATE, Sound, times_at, write_movie

COLOURS = [(40 * k + 20, 230 - 40 * k, 60 * (k % 3) + 40) for k in range(5)]
TONES = [400 + 300 * k for k in range(5)]
KEEP_ALL = 'name: all\nrules:\n  uncaptioned: caption_failure != ""\n'


def caption(root: Path, config: CaptionConfig) -> CaptionCounts:
    return job.caption(root, config, Engine(inline=True))


@dataclass(frozen=True, slots=True)
class Server:
    url: str
    log: Path

    def endpoint(self, mood: str, **settings: Any) -> Endpoint:
        usual: dict[str, Any] = {"timeout_s": 10.0, "max_wait_s": 0.05}
        return Endpoint(self.url, f"{mood}-model", **usual | settings)

    def config(self, mood: str, **settings: Any) -> CaptionConfig:
        one = self.endpoint(mood, **settings)
        return CaptionConfig(video=one, audio=one, frames=2, longer_side=64, threads=2)

    def requests(self) -> list[str]:
        if not self.log.exists():
            return []
        return [json.loads(line)["id"] for line in self.log.read_text().splitlines()]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    program, log = Path(__file__).with_name("caption_server.py"), tmp_path / "requests.jsonl"
    command = [sys.executable, str(program), str(log)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield Server(f"http://127.0.0.1:{int(process.stdout.readline())}/v1", log)
        process.kill()


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip of each of five films, one colour and one tone each, and a silent one."""
    root = tmp_path_factory.mktemp("tones")
    (root / "raw").mkdir()
    (root / "policy.yaml").write_text(KEEP_ALL)
    seconds = np.arange(round(1.6 * RATE)) / RATE
    for k, (colour, tone) in enumerate(zip(COLOURS, TONES, strict=True)):
        sound = 0.3 * np.sin(2 * np.pi * tone * seconds).astype(np.float32)
        picture = np.broadcast_to(np.array(colour, np.uint8), (64, 96, 3)).copy()
        film = Sound(np.stack([sound, sound])) if k else None
        write_movie(root / "raw" / f"{k}.mp4", [picture] * 26, times_at(16, 26), film)
    config = IngestConfig(num_frames=17)
    ingest([root / "raw"], root / "m", config, root / "policy.yaml", Engine(inline=True))
    return root / "m"


@pytest.fixture
def manifest(ingested: Path, tmp_path: Path) -> Manifest:
    shutil.copytree(ingested, tmp_path / "m")
    return Manifest(tmp_path / "m")


def film_of(clip: Clip) -> int:
    return int(Path(clip.source.uri).stem)


def assert_own_captions(clips: list[Clip]) -> None:
    """Each says the colour and the tone of its own film."""
    for clip in clips:
        assert clip.captions is not None
        said = [10 * int(part) for part in re.findall(r"\d+", clip.captions.video)]
        apart = [np.abs(np.array(colour) - said).max() for colour in COLOURS]
        assert int(np.argmin(apart)) == film_of(clip)
        assert min(apart) < 15
        if film_of(clip) == 0:
            assert clip.captions.audio == "silence"
        else:
            (tone,) = re.findall(r"\d+", clip.captions.audio)
            assert abs(10 * int(tone) - TONES[film_of(clip)]) < 20


def test_every_clip_gets_its_own_two_captions(manifest: Manifest, server: Server) -> None:
    counts = caption(manifest.root, server.config("good"))
    assert counts == CaptionCounts(captioned=5, failed={}, asked=9)
    clips = manifest.clips("keep")
    assert_own_captions(clips)
    assert {clip.captions.model for clip in clips if clip.captions} == {"good-model"}
    before, asked = manifest.clips_file.read_bytes(), len(server.requests())
    assert caption(manifest.root, server.config("good")).asked == 0
    assert len(server.requests()) == asked == 9
    assert manifest.clips_file.read_bytes() == before


def test_a_server_that_misbehaves_costs_time_and_mismatches_nothing(
    manifest: Manifest, server: Server
) -> None:
    counts = caption(manifest.root, server.config("wild"))
    assert counts.failed == {}
    assert_own_captions(manifest.clips("keep"))
    assert len(server.requests()) > counts.asked  # Some had to be asked again.
    assert max(Counter(server.requests()).values()) <= 3


def test_what_is_no_caption_is_a_reason_and_drops_the_clip(
    manifest: Manifest, server: Server
) -> None:
    with pytest.raises(YieldCollapsed, match=r"none of 5 clips got captions .*retry_failed=true"):
        caption(manifest.root, server.config("bad"))
    for clip in manifest.clips():
        assert clip.captions is None
        assert clip.caption_failure is not None
        assert clip.caption_failure.partition(":")[2] in SAID
        assert clip.reasons == ["uncaptioned"]
    asked = len(server.requests())
    with pytest.raises(YieldCollapsed):
        caption(manifest.root, server.config("bad"))
    assert len(server.requests()) == asked  # They would answer the same again.
    with pytest.raises(YieldCollapsed):
        caption(manifest.root, replace(server.config("bad"), retry_failed=True))
    assert len(server.requests()) == 2 * asked
    assert caption(manifest.root, server.config("good")).captioned == 5
    assert_own_captions(manifest.clips("keep"))


def test_a_run_that_stops_goes_on_where_it_was(manifest: Manifest, server: Server) -> None:
    half = replace(server.config("half", max_retries=0), threads=1, max_failures_in_a_row=2)
    with pytest.raises(RunError, match=r"2 clips in a row failed.*http_5xx.*run it again"):
        caption(manifest.root, half)
    assert {clip.captions for clip in manifest.clips()} == {None}
    answered = server.requests()[:2]
    server.log.with_name("mended").touch()
    assert caption(manifest.root, half) == CaptionCounts(captioned=5, failed={}, asked=7)
    assert_own_captions(manifest.clips("keep"))
    assert all(server.requests().count(one) == 1 for one in answered)


def test_a_budget_is_kept_and_the_rest_is_asked_by_the_next_run(
    manifest: Manifest, server: Server
) -> None:
    config = server.config("good", max_requests=2)
    counts = caption(manifest.root, config)
    assert len(server.requests()) == 4  # Two for pictures, two for sounds.
    assert sum(counts.failed.values()) == 5 - counts.captioned
    assert {one.partition(":")[2] for one in counts.failed} == {"budget"}
    while counts.failed:
        counts = caption(manifest.root, config)
    assert sorted(Counter(server.requests()).values()) == [1] * 9
    assert_own_captions(manifest.clips("keep"))


def test_an_endpoint_that_cannot_be_used_says_so_at_once(
    manifest: Manifest, server: Server
) -> None:
    with pytest.raises(UsageError, match=r"HTTP 401 for model locked-model.*OPENAI_API_KEY"):
        caption(manifest.root, server.config("locked"))
    assert len(server.requests()) <= 6


def test_nobody_waits_for_a_retry_when_an_endpoint_cannot_be_used(
    manifest: Manifest, server: Server
) -> None:
    with pytest.raises(UsageError, match="HTTP 401"):
        caption(manifest.root, server.config("closing", max_wait_s=60.0))
    asked = server.requests()
    assert asked.count(asked[0]) == 1


@pytest.mark.parametrize(
    ("mood", "in_a_row", "error", "why", "passes"),
    [
        ("picky", 20, RunError, r"5 of 5 clips failed \(http_400: .*max_tokens.*retry_fail", False),
        ("picky", 2, RunError, r"2 clips in a row failed.*http_400.*retry_failed=true", False),
        ("talking", 20, RunError, r"5 of 5 clips failed \(unreadable", True),
        ("moved", 20, UsageError, r"HTTP 308.*check url", True),
    ],
)
def test_an_endpoint_that_takes_no_request_stops_the_run_and_all_are_asked_once_it_is_mended(
    manifest: Manifest,
    server: Server,
    mood: str,
    in_a_row: int,
    error: type[Exception],
    why: str,
    passes: bool,
) -> None:
    config = replace(server.config(mood, max_retries=0), max_failures_in_a_row=in_a_row)
    with pytest.raises(error, match=why):
        caption(manifest.root, config)
    assert {clip.caption_failure for clip in manifest.clips()} == {None}
    asked = len(server.requests())
    server.log.with_name("mended").touch()
    if not passes and asked == 5:
        with pytest.raises(error, match=why):  # What may be a clip's own fault is not asked again.
            caption(manifest.root, config)
        assert len(server.requests()) == asked
    counts = caption(manifest.root, replace(config, retry_failed=not passes))
    assert counts == CaptionCounts(captioned=5, failed={}, asked=9)
    assert_own_captions(manifest.clips("keep"))


def test_who_asks_next_waits_for_a_server_that_wants_to_be_left_alone(server: Server) -> None:
    endpoint = server.endpoint("crowded", max_retries=0, max_wait_s=10.0).open()
    sound = np.sin(np.arange(1600)).astype(np.float32)
    first, second = (
        endpoint.ask(Question(f"{k}-audio", "?", None, sound, 16_000)) for k in range(2)
    )
    endpoint.close()
    assert first.reason == "http_429"
    assert second.text is not None


def test_an_answer_that_never_ends_is_a_timeout(manifest: Manifest, server: Server) -> None:
    dripping = server.endpoint("dripping", timeout_s=0.3, max_retries=0)
    config = replace(server.config("good"), video=dripping, audio=TemplateCaptions())
    with pytest.raises(RunError, match=r"5 of 5 clips failed \(timeout"):
        caption(manifest.root, config)


def test_nobody_there_stops_the_run(manifest: Manifest) -> None:
    gone = Endpoint("http://127.0.0.1:9/v1", "m", max_retries=1, max_wait_s=0.01)
    with pytest.raises(RunError, match="unreachable"):
        caption(manifest.root, CaptionConfig(video=gone, max_failures_in_a_row=3))


def test_a_prompt_of_ones_own_asks_again(manifest: Manifest, server: Server) -> None:
    config = replace(server.config("good"), audio=TemplateCaptions())
    caption(manifest.root, config)
    first = {one.captions.prompt_digest for one in manifest.clips("keep") if one.captions}
    file = manifest.root.parent / "prompt.txt"
    file.write_text("Say what you see.")
    counts = caption(manifest.root, replace(config, video_prompt=file))
    assert counts.asked == 5
    second = {one.captions.prompt_digest for one in manifest.clips("keep") if one.captions}
    assert first.isdisjoint(second)
    file.write_text(" ")
    with pytest.raises(UsageError, match=r"prompt\.txt: empty"):
        caption(manifest.root, replace(config, video_prompt=file))


def test_a_joint_caption_is_of_picture_and_sound_and_leaves_the_two_as_they_are(
    manifest: Manifest, server: Server
) -> None:
    config = server.config("good")
    caption(manifest.root, config)
    two = {clip.clip_id: clip.captions for clip in manifest.clips("keep")}
    counts = caption(manifest.root, replace(config, joint=server.endpoint("good")))
    assert counts == CaptionCounts(captioned=5, failed={}, asked=4)
    for clip in manifest.clips("keep"):
        assert clip.captions is not None
        assert replace(clip.captions, joint=None) == two[clip.clip_id]
        if film_of(clip) == 0:
            assert clip.captions.joint is None  # There is nothing to hear.
            continue
        assert clip.captions.joint is not None
        assert clip.captions.joint.text == f"{clip.captions.video} with {clip.captions.audio}"
        assert clip.captions.joint.model == "good-model"
        assert clip.captions.joint.prompt_digest == config.prompt("joint").digest
    asked = [one for one in server.requests() if one.endswith("-joint")]
    assert len(set(asked)) == 4
    assert caption(manifest.root, config).asked == 0
    assert {clip.clip_id: clip.captions for clip in manifest.clips("keep")} == two


def test_without_a_joint_caption_a_clip_is_kept_and_says_why(
    manifest: Manifest, server: Server
) -> None:
    counts = caption(manifest.root, replace(server.config("good"), joint=server.endpoint("shy")))
    assert counts == CaptionCounts(captioned=5, failed={"joint:empty": 4}, asked=13)
    clips = manifest.clips("keep")
    assert_own_captions(clips)
    joint = [clip.captions.joint for clip in clips if clip.captions and clip.captions.joint]
    assert [(one.text, one.reason) for one in joint] == [(None, "empty")] * 4


def test_workers_of_ray_ask_as_this_process_does(
    manifest: Manifest, server: Server, tmp_path: Path
) -> None:
    qwen2_audio(tmp_path / "model")
    model = MultimodalLM(str(tmp_path / "model"))
    config = replace(server.config("good"), audio=model, device="cpu")
    counts = job.caption(manifest.root, config, Engine(workers=1))
    assert sorted(Counter(server.requests()).values()) == [1] * 5
    here = manifest.table()
    shutil.rmtree(manifest.root / "captions")
    assert caption(manifest.root, config) == counts
    assert manifest.table().equals(here)


def test_a_clip_that_cannot_be_read_costs_itself_and_is_tried_again(
    manifest: Manifest, server: Server
) -> None:
    config = server.config("good")
    short = replace(config, limits=DecodeLimits(deadline_s=1e-6))
    with pytest.raises(RunError, match=r"5 of 5 clips failed \(media_took_too_long"):
        caption(manifest.root, short)
    assert server.requests() == []
    assert caption(manifest.root, config) == CaptionCounts(captioned=5, failed={}, asked=9)
    assert_own_captions(manifest.clips("keep"))


def test_the_command_takes_an_endpoint(
    manifest: Manifest, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ["video.kind=endpoint", f"video.url={server.url}", "video.model=good-model"]
    options = [x for one in settings for x in ("--set", one)]
    assert run("caption", manifest.root, "--inline", "--json", *options) == 0
    assert json.loads(capsys.readouterr().out)["asked"] == 5
    models = {clip.captions.model for clip in manifest.clips("keep") if clip.captions}
    assert models == {"good-model and template"}
    assert run("caption", manifest.root, "--set", "video.kind=endpont") == 2
