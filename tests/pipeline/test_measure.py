from pathlib import Path

import numpy as np
import pytest

from avdata.errors import MediaError
from avdata.pipeline.measure import source
from avdata.pipeline.measure.motion import FlowMeter, FrameMotion, motion, motion_label
from avdata.pipeline.measure.sound import onsets
from avdata.pipeline.measure.source import IngestConfig, clip_starts, measure_source
from avdata.pipeline.measure.technical import frame_exposure, technical
from avdata.pipeline.media import stream
from avdata.pipeline.media.stream import Picture
from avdata.pipeline.record import Clip
from tests.pipeline.media import (
    RATE,
    Image,
    Sound,
    clicks,
    picture,
    plain,
    silence,
    textured,
    times_at,
    tone,
    with_square,
    write_movie,
)

FPS = 24.0
SIZE = (180, 320)
CONFIG = IngestConfig(num_frames=17)
HITS = [0.75, 1.5]


def flow(pictures: list[Image]) -> list[FrameMotion]:
    meter = FlowMeter()
    for k, image in enumerate(pictures):
        meter.add(picture(k / FPS, image))
    return meter.motions[:]


def label(pictures: list[Image]) -> str:
    return motion_label(motion(flow(pictures)))


def panned(steps: int, pixels: int) -> list[Image]:
    height, width = SIZE
    wide = textured(1, height, width + steps * pixels)
    return [wide[:, k * pixels : k * pixels + width] for k in range(steps)]


def flying(steps: int, pixels: float) -> list[Image]:
    return [with_square(textured(1, *SIZE), 20 + k * pixels, 70, 40) for k in range(steps)]


def measured(path: Path, pictures: list[Image], sound: Sound | None = None) -> list[Clip]:
    write_movie(path, pictures, times_at(FPS, len(pictures)), sound)
    return measure_source(path, "uri", CONFIG)


# Motion.


def test_nothing_moves_in_a_still_picture_nor_in_a_little_noise() -> None:
    still = [textured(1, *SIZE)] * 12
    rng = np.random.default_rng(0)
    grainy = [
        (image + rng.integers(-2, 3, image.shape[:2])[..., None]).clip(0, 255).astype(np.uint8)
        for image in still
    ]
    assert label(still) == label(grainy) == "static"
    assert motion(flow(still)).moving_share == 0


def test_a_pan_is_the_camera_and_no_motion() -> None:
    found = motion(flow(panned(12, 3)))
    assert motion_label(found) == "static"
    assert found.camera_speed == pytest.approx(3 * FPS / SIZE[0], rel=0.1)


def test_a_thing_that_moves_before_a_still_camera_is_motion() -> None:
    found = motion(flow(flying(12, 4)))
    assert motion_label(found) != "static"
    assert found.camera_speed < 0.02
    assert 0 < found.moving_share < 0.3


def test_velocity_has_the_direction_and_speed_of_the_thing() -> None:
    strongest = []
    for frame in flow(flying(12, 4))[2:]:
        momentum = np.linalg.norm(frame.velocity, axis=2) * np.sqrt(frame.moving)
        strongest.append(frame.velocity[np.unravel_index(momentum.argmax(), momentum.shape)])
    across, down = np.median(strongest, axis=0)
    assert across == pytest.approx(4 * FPS / SIZE[0], rel=0.3)
    assert abs(down) < 0.2 * across


def test_of_fast_video_every_second_frame_is_enough() -> None:
    meter = FlowMeter()
    for k, image in enumerate(flying(24, 2)):
        meter.add(picture(k / 60, image))
    np.testing.assert_allclose(np.diff(meter.times), 2 / 60)
    assert motion(meter.motions[:]).peak == pytest.approx(motion(flow(flying(24, 5))).peak, rel=0.3)


def test_what_differs_across_a_cut_is_no_motion() -> None:
    meter = FlowMeter()
    for k, image in enumerate([textured(1, *SIZE)] * 4 + [textured(2, *SIZE)] * 4):
        meter.add(picture(k / FPS, image))
    assert motion(meter.motions[:]).peak > 0
    meter.cut(4 / FPS)
    assert motion(meter.motions[:]).peak == 0


def test_light_that_changes_is_no_motion() -> None:
    """Of the whole picture, and of a part that no flow leads to."""
    base = textured(1, *SIZE).astype(float)
    fading = [(base * (0.3 + 0.06 * k)).clip(0, 255).astype(np.uint8) for k in range(12)]
    appearing = [textured(1, *SIZE) for _ in range(12)]
    for k, image in enumerate(appearing):
        image[60:120, 100:200] = 20 * k
    assert motion(flow(fading)).mean < 0.3 * motion(flow(flying(12, 4))).mean
    assert motion(flow(appearing)).mean < 0.3 * motion(flow(flying(12, 4))).mean


LIGHTS = {
    "in": lambda luma, share: luma * share,
    "out": lambda luma, share: luma * (1 - share),
    "white": lambda luma, share: luma + (255 - luma) * share,
    "exposure": lambda luma, share: 255 * (luma / 255) ** (2 - share),
    "step": lambda luma, share: luma * (0.8 if share < 0.5 else 1),
}


def lit(pictures: list[Image], light: str) -> list[Image]:
    steps = np.linspace(0, 1, len(pictures))
    changed = [
        LIGHTS[light](image.astype(float), step)
        for image, step in zip(pictures, steps, strict=True)
    ]
    return [image.round().clip(0, 255).astype(np.uint8) for image in changed]


def noisy(pictures: list[Image], spread: float) -> list[Image]:
    rng = np.random.default_rng(0)
    noise = [spread * rng.standard_normal((*SIZE, 1)) for _ in pictures]
    return [
        (image + one).round().clip(0, 255).astype(np.uint8)
        for image, one in zip(pictures, noise, strict=True)
    ]


def wall() -> Image:
    """Smooth, with a little shade: nothing in it tells how it moves."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    shade = 100 + 50 * x / SIZE[1] + 20 * y / SIZE[0]
    return np.repeat(shade[..., None], 3, axis=2).astype(np.uint8)


@pytest.mark.parametrize("light", LIGHTS)
def test_what_moves_in_changing_light_moves_as_in_steady_light(light: str) -> None:
    steady, changing = motion(flow(flying(24, 4))), motion(flow(lit(flying(24, 4), light)))
    assert changing.mean == pytest.approx(steady.mean, rel=0.4)
    assert changing.peak == pytest.approx(steady.peak, rel=0.25)


@pytest.mark.parametrize("light", LIGHTS)
def test_neither_light_nor_a_pan_in_it_is_motion(light: str) -> None:
    assert label(noisy(lit([wall()] * 24, light), 1)) == "static"
    assert label(lit(panned(24, 3), light)) == "static"


@pytest.mark.parametrize("spread", [2, 6])
def test_noise_is_no_motion_and_hides_none(spread: float) -> None:
    still, thing = [wall()] * 24, [with_square(wall(), 20 + 4 * k, 70, 40) for k in range(24)]
    assert motion(flow(noisy(still, spread))).moving_share < 0.01
    found, clean = motion(flow(noisy(thing, spread))), motion(flow(thing))
    assert found.peak == pytest.approx(clean.peak, rel=0.5)
    assert found.mean == pytest.approx(clean.mean, rel=0.6)


def test_all_of_a_plain_thing_moves_not_its_edges_alone() -> None:
    side = 80
    plain_thing = [with_square(textured(1, *SIZE), 20 + 4 * k, 40, side) for k in range(12)]
    share = side**2 / (SIZE[0] * SIZE[1])
    assert motion(flow(plain_thing)[1:]).moving_share == pytest.approx(share, rel=0.3)


@pytest.mark.parametrize("size", [(24, 24), (60, 640), (640, 60), (180, 320)])
def test_pictures_of_every_shape_are_measured(size: tuple[int, int], tmp_path: Path) -> None:
    height, width = size
    wide = textured(1, height, width + 2 * 48)
    pictures = [wide[:, 2 * k : 2 * k + width] for k in range(48)]
    assert measured(tmp_path / "a.mp4", pictures)


def test_faster_is_more() -> None:
    slow, fast = motion(flow(flying(12, 2))), motion(flow(flying(12, 6)))
    assert fast.peak > slow.peak
    assert fast.mean > slow.mean


# Sound.


@pytest.mark.parametrize("at", [[0.3], [0.211, 0.5, 0.777, 1.204], [0.5, 0.6]])
@pytest.mark.parametrize("bed", ["nothing", "tone", "noise"])
def test_onsets_are_where_the_clicks_are(at: list[float], bed: str) -> None:
    sound = clicks(at, 1.5)[0]
    if bed == "tone":
        sound = sound + 0.1 * tone(200, 1.5)[0]
    elif bed == "noise":
        sound = sound + 0.002 * np.random.default_rng(1).standard_normal(len(sound))
    found = onsets(sound.astype(np.float32), RATE)
    np.testing.assert_allclose(found, at, atol=0.005)


@pytest.mark.parametrize("rate", [16_000, 48_000])
def test_onsets_do_not_depend_on_the_rate(rate: int) -> None:
    sound = np.zeros(rate, np.float32)
    sound[rate // 4 : rate // 4 + 200] = np.random.default_rng(0).uniform(-0.5, 0.5, 200)
    np.testing.assert_allclose(onsets(sound, rate), [0.25], atol=0.005)


def test_a_steady_sound_has_no_onsets() -> None:
    rng = np.random.default_rng(0)
    steady = [
        silence(1.5)[0],
        tone(440, 1.5)[0][2000:],
        (0.1 * rng.standard_normal(RATE)).astype(np.float32),
        np.zeros(10, np.float32),
    ]
    for sound in steady:
        assert [t for t in onsets(sound, RATE) if t > 0.05] == []


# Exposure.


def level_picture(level: int) -> Picture:
    return picture(0.0, plain(level))


def test_exposure_is_in_zero_to_one() -> None:
    white, black = (
        frame_exposure(level_picture(255), None),
        frame_exposure(level_picture(0), level_picture(255)),
    )
    assert (white.mean, white.std, black.mean, black.change) == (1.0, 0.0, 0.0, 1.0)
    both = technical([white, black], [], None)
    assert (both.luma_mean, both.black_share, both.frozen_share) == (0.5, 0.5, 0.0)


def test_a_frame_that_repeats_is_frozen() -> None:
    levels = [10, 10, 10, 90, 90]
    frames = [
        frame_exposure(level_picture(level), None if before is None else level_picture(before))
        for before, level in zip([None, *levels], levels, strict=False)
    ]
    assert technical(frames, [], None).frozen_share == pytest.approx(3 / 4)
    assert technical(frames[:1], [], None).frozen_share == 0


# Clips of a shot.


@pytest.mark.parametrize("at_end", [True, False])
@pytest.mark.parametrize("length", [0.5, 1.0624, 1.0626, 3.0, 10.7])
def test_clips_tile_a_shot_without_overlap(length: float, at_end: bool) -> None:
    starts = clip_starts(2.0, 2.0 + length, CONFIG, at_end=at_end)
    np.testing.assert_allclose(np.diff(starts), CONFIG.clip_seconds)
    slack = 0.5 / CONFIG.fps if at_end else 0.002
    if starts:
        assert starts[0] == 2.0
        assert starts[-1] + CONFIG.clip_seconds <= 2.0 + length + slack
    left = length - len(starts) * CONFIG.clip_seconds
    assert left < CONFIG.clip_seconds


# Sources.


def test_clips_lie_inside_shots_and_on_the_sources_clock(tmp_path: Path) -> None:
    first, second = textured(2, low=10, high=90), textured(3, low=120, high=250)
    clips = measured(tmp_path / "a.mp4", [first] * 30 + [second] * 60)
    cut = 30 / FPS
    assert [(clip.shot, clip.start_s) for clip in clips] == [
        (0, 0.0),
        (1, pytest.approx(cut)),
        (1, pytest.approx(cut + CONFIG.clip_seconds)),
    ]
    assert all(clip.end_s - clip.start_s == pytest.approx(CONFIG.clip_seconds) for clip in clips)
    assert clips[0].technical.luma_mean < clips[1].technical.luma_mean
    assert len({clip.clip_id for clip in clips}) == 3


def test_a_flash_of_cut_is_no_contact(tmp_path: Path) -> None:
    """Flow across a cut is no motion, even with a click at the cut."""
    first, second = textured(2, low=10, high=90), textured(3, low=120, high=250)
    sound = Sound(clicks([30 / FPS], 90 / FPS))
    clips = measured(tmp_path / "a.mp4", [first] * 30 + [second] * 60, sound)
    assert [clip.events for clip in clips] == [[]] * 3


@pytest.mark.parametrize(
    ("sound", "silent", "heard"),
    [(None, True, False), (Sound(silence(1.5)), True, True), (Sound(tone(300, 1.5)), False, True)],
)
def test_silent_is_no_sound_or_none_to_hear(
    tmp_path: Path, sound: Sound | None, silent: bool, heard: bool
) -> None:
    (clip,) = measured(tmp_path / "a.mp4", [textured(1)] * 36, sound)
    assert clip.labels.silent == silent
    assert (clip.audio is not None) == heard


def test_rows_do_not_depend_on_how_many_frames_are_measured_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.mp4"
    wanted = measured(path, flying(49, 3), Sound(clicks(HITS, 2.0)))
    for pictures, frames_of_sound in ((1, 1), (7, 3), (49, 1000)):
        monkeypatch.setattr(source, "AT_ONCE", pictures)
        monkeypatch.setattr(stream, "SOUND_AT_ONCE", frames_of_sound)
        assert measure_source(path, "uri", CONFIG) == wanted


def test_ids_are_of_the_bytes_and_the_span_not_of_the_name(tmp_path: Path) -> None:
    path = write_movie(tmp_path / "a.mp4", [textured(1)] * 60, times_at(FPS, 60))
    copy = tmp_path / "b.mp4"
    copy.write_bytes(path.read_bytes())
    one, same = measure_source(path, "one", CONFIG), measure_source(copy, "other", CONFIG)
    longer = measure_source(path, "one", IngestConfig(num_frames=33))
    assert [clip.clip_id for clip in one] == [clip.clip_id for clip in same]
    assert not {clip.clip_id for clip in one} & {clip.clip_id for clip in longer}


def test_so_many_clips_of_a_source_and_no_more(tmp_path: Path) -> None:
    path = write_movie(tmp_path / "a.mp4", [textured(1)] * 60, times_at(FPS, 60))
    whole = measure_source(path, "uri", CONFIG)
    one = measure_source(path, "uri", IngestConfig(num_frames=17, max_clips_per_source=1))
    assert len(whole) == 2
    assert one == whole[:1]


def test_a_source_shorter_than_a_clip_says_how_short(tmp_path: Path) -> None:
    path = write_movie(tmp_path / "a.mp4", [textured(1)] * 12, times_at(FPS, 12))
    with pytest.raises(MediaError, match=r"shorter_than_a_clip.*0\.50 s.*1\.06 s"):
        measure_source(path, "uri", CONFIG)


def test_settings_that_would_give_other_rows_have_another_fingerprint() -> None:
    configs = [
        IngestConfig(),
        IngestConfig(num_frames=17),
        IngestConfig(fps=24),
        IngestConfig(max_clips_per_source=3),
    ]
    assert len({config.fingerprint for config in configs}) == len(configs)


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="num_frames must be 4k"):
        IngestConfig(num_frames=32)
    with pytest.raises(ValueError, match="fps must be at least 1"):
        IngestConfig(fps=0)
