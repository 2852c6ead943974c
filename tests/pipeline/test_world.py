import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest

from avdata.config import from_plain, to_plain
from avdata.errors import RunError
from avdata.pipeline.world import sound
from avdata.pipeline.world.corpus import WorldConfig, generate, make, read_truth, truth_path
from avdata.pipeline.world.physics import REST_SPEED, Flight, Run, collide, simulate
from avdata.pipeline.world.scene import (
    GRAVITY,
    SAMPLE_RATE,
    Ball,
    Room,
    Span,
)
from avdata.pipeline.world.scenes import KINDS, draw
from avdata.pipeline.world.truth import Truth, Video

ROOM = Room(floor=0.9, left=0.0, right=1.6)
TIMES = np.linspace(0.0, 4.0, 2001)


def video(kind: str, index: int = 0) -> Video:
    return make(WorldConfig(kinds=(kind,), height=96, width=160), index)


def crowd(seed: int) -> tuple[list[Ball], Run]:
    """Three balls in a closed room, run until 4 s or until two lean on each other."""
    for attempt in range(100):
        rng = np.random.default_rng((seed, attempt))
        balls = [Ball(float(rng.uniform(0.08, 0.13)), m) for m in ("rubber", "wood", "metal")]
        starts = [
            Flight(0.0, x, y, vx, vy, GRAVITY)
            for x, (y, vx, vy) in zip(
                (0.3, 0.8, 1.3),
                rng.uniform((0.2, -1.5, -1.5), (0.5, 1.5, 1.5), (3, 3)),
                strict=True,
            )
        ]
        run = simulate(ROOM, balls, starts, until=4.0)
        if run is not None and any(impact.other is not None for impact in run.impacts):
            return balls, run
    raise AssertionError("no run without leaning")


def energy(balls: list[Ball], run: Run, t: float) -> float:
    states = [run.state(body, t) for body in range(len(balls))]
    return sum(
        ball.mass * (0.5 * (s.vx**2 + s.vy**2) + ROOM.gravity * (ROOM.floor - s.y))
        for ball, s in zip(balls, states, strict=True)
    )


def test_bounces_come_when_ballistics_says() -> None:
    ball, drop = Ball(0.1, "rubber"), 0.6
    start = Flight(0.0, 0.8, ROOM.floor - ball.radius - drop, 0.0, 0.0, GRAVITY)
    run = simulate(ROOM, [ball], [start], until=20.0)
    assert run is not None
    speed, t = math.sqrt(2 * GRAVITY * drop), math.sqrt(2 * drop / GRAVITY)
    expected = [t]
    while (speed := speed * ball.restitution) >= REST_SPEED:
        t += 2 * speed / GRAVITY
        expected.append(t)
    np.testing.assert_allclose([impact.t for impact in run.impacts], expected, atol=1e-9)
    assert run.state(0, 20.0).y == ROOM.floor - ball.radius


@pytest.mark.parametrize("seed", range(5))
def test_energy_never_grows(seed: int) -> None:
    balls, run = crowd(seed)
    energies = [energy(balls, run, t) for t in TIMES]
    assert (np.diff(energies) < 1e-9).all()
    assert energies[-1] < energies[0]


@pytest.mark.parametrize("seed", range(5))
def test_balls_overlap_neither_each_other_nor_the_room(seed: int) -> None:
    balls, run = crowd(seed)
    tracks = [run.track(body, TIMES)[:, :2] for body in range(len(balls))]
    for k, (ball, track) in enumerate(zip(balls, tracks, strict=True)):
        assert track[:, 1].max() < ROOM.floor - ball.radius + 1e-6
        assert track[:, 0].min() > ball.radius - 1e-6
        assert track[:, 0].max() < 1.6 - ball.radius + 1e-6
        for other in range(k):
            apart = np.linalg.norm(track - tracks[other], axis=1)
            assert apart.min() > ball.radius + balls[other].radius - 1e-6


def test_a_collision_keeps_momentum_and_restitution() -> None:
    balls = Ball(0.1, "rubber"), Ball(0.13, "metal")
    before = (
        Flight(0.0, 0.0, 0.0, 1.2, 0.3, GRAVITY),
        Flight(0.0, 0.138, 0.184, -0.4, -0.9, GRAVITY),
    )
    *after, impulse = collide(balls, before)

    def momentum(*flights: Flight) -> list[float]:
        pairs = list(zip(balls, flights, strict=True))
        return [sum(b.mass * f.vx for b, f in pairs), sum(b.mass * f.vy for b, f in pairs)]

    def approach(a: Flight, b: Flight) -> float:
        return (a.vx - b.vx) * 0.6 + (a.vy - b.vy) * 0.8

    np.testing.assert_allclose(momentum(*after), momentum(*before), atol=1e-12)
    assert approach(*after) == pytest.approx(-balls[1].restitution * approach(*before))
    assert impulse > 0


def test_what_would_have_to_slide_is_refused() -> None:
    balls = Ball(0.1, "rubber"), Ball(0.1, "wood")
    low = Flight(0.0, 0.8, ROOM.floor - 0.1, 0.0, 0.0, 0.0)
    falling = Flight(0.0, 0.8 + 1e-6, 0.3, 0.0, 0.0, GRAVITY)
    assert simulate(ROOM, balls, [low, falling], until=4.0) is None


@pytest.mark.parametrize("kind", ["bounce", "collide", "pan", "offscreen", "two_shots"])
def test_the_sound_rises_where_a_contact_is(kind: str) -> None:
    made = video(kind)
    assert made.truth.contacts
    # What a millisecond holds of high frequencies: the modes ring far below.
    edges = np.abs(np.diff(made.samples, n=2)).sum(axis=0)
    step = SAMPLE_RATE // 1000
    levels = edges[: len(edges) // step * step].reshape(-1, step).mean(axis=1)
    for contact in made.truth.contacts:
        begin = round((contact.t - 0.04) * SAMPLE_RATE / step)
        rise = np.diff(levels[begin : begin + 80])
        at = (begin + 1 + int(rise.argmax())) * step / SAMPLE_RATE
        assert at == pytest.approx(contact.t, abs=0.003)


def test_sound_comes_from_where_the_impact_is() -> None:
    made = video("collide")
    for contact in made.truth.contacts:
        begin = round(contact.t * SAMPLE_RATE)
        left, right = np.square(made.samples[:, begin : begin + 50]).sum(axis=1)
        assert (right > left) == (contact.x > 0.5)


def test_a_larger_ball_sounds_deeper_and_every_mode_is_low() -> None:
    peaks = []
    for radius in (0.08, 0.13):
        ring = sound.strike("glass", radius, 1.0, np.random.default_rng(0))
        spectrum = np.abs(np.fft.rfft(ring))
        peaks.append(float(spectrum.argmax() * SAMPLE_RATE / len(ring)))
    assert 100 < peaks[1] < peaks[0] < 650


def test_silence_is_digital_and_a_slide_stands_still() -> None:
    silent, slide = video("silent"), video("slide")
    assert not silent.samples.any()
    assert silent.truth.silent
    assert silent.truth.contacts
    assert silent.truth.evident() == []
    assert (slide.frames == slide.frames[0]).all()
    assert slide.samples.std() > 0.01
    assert (slide.truth.motion, slide.truth.contacts) == ("static", [])


def test_equal_seed_and_index_give_equal_videos_and_others_do_not() -> None:
    once, again, other = video("bounce", 3), video("bounce", 3), video("bounce", 4)
    np.testing.assert_array_equal(once.frames, again.frames)
    np.testing.assert_array_equal(once.samples, again.samples)
    assert once.truth == again.truth
    assert (once.frames != other.frames).any()
    assert (once.samples != other.samples).any()


@pytest.mark.parametrize("index", range(3))
def test_the_cut_is_where_the_truth_says(index: int) -> None:
    made = video("two_shots", index)
    (_, cut), (start, end) = made.truth.shots
    change = np.abs(np.diff(made.frames.astype(float), axis=0)).mean(axis=(1, 2, 3))
    at = int(change.argmax()) + 1
    assert at / made.truth.fps == cut == start
    assert end == made.truth.seconds
    assert change.max() > 10 * np.median(change)
    assert {c.shot for c in made.truth.contacts} == {0, 1}
    for contact in made.truth.contacts:
        low, high = made.truth.shots[contact.shot]
        assert low < contact.t < high


@pytest.mark.parametrize("kind", ["bounce", "collide", "pan", "offscreen"])
def test_balls_are_drawn_where_the_truth_says(kind: str) -> None:
    made = video(kind, 1)
    _, height, width, _ = made.frames.shape
    checked = 0
    for k in range(0, len(made.frames), 4):
        # Balls are colourful, rooms are not.
        colourful = np.ptp(made.frames[k].astype(int), axis=2) > 64
        places = [(b.xs[k] * width, b.ys[k] * height) for b in made.truth.trajectories]
        for ball, (x, y) in zip(made.truth.trajectories, places, strict=True):
            reach = 1.5 * ball.radius * height
            if (
                sum(math.hypot(x - u, y - v) < 2 * reach for u, v in places) > 1
                or x < 0
                or x > width
            ):
                continue
            left, top = max(0, int(x - reach)), max(0, int(y - reach))
            window = colourful[top : int(y + reach) + 1, left : int(x + reach) + 1]
            rows, columns = np.nonzero(window)
            # The centre of pixel i lies at i + 0.5.
            assert left + (columns.min() + columns.max() + 1) / 2 == pytest.approx(x, abs=1)
            assert top + (rows.min() + rows.max() + 1) / 2 == pytest.approx(y, abs=1)
            assert np.ptp(columns) + 1 == pytest.approx(2 * ball.radius * height, abs=2)
            checked += 1
    assert checked > 20


def test_a_pan_moves_the_background_and_a_still_camera_does_not() -> None:
    for kind, still in (("bounce", True), ("pan", False)):
        frames = video(kind).frames
        top = frames[:, :3].astype(int)  # Above every ball.
        assert (np.abs(top[0] - top[-1]).max() == 0) == still


def test_what_is_beside_the_picture_is_heard_but_not_seen() -> None:
    for index in range(4):
        truth = video("offscreen", index).truth
        assert truth.contacts
        assert not any(contact.on_screen for contact in truth.contacts)
        assert truth.evident() == []
        heard, seen = truth.trajectories
        assert not any(0 <= x <= 1 for x in heard.xs)
        # Smooth: no step differs from the one before by more than gravity allows in a frame.
        path = np.stack([np.array(seen.xs) * 160 / 96, seen.ys], axis=1)
        jumps = np.linalg.norm(np.diff(path, n=2, axis=0), axis=1) * truth.fps
        assert jumps.max() < 1.2 * GRAVITY / truth.fps


def test_truth_comes_back_equal() -> None:
    for kind in KINDS:
        truth = video(kind).truth
        plain = json.loads(json.dumps(to_plain(truth)))
        assert from_plain(Truth, plain, kind) == truth


def test_generate_writes_pairs_and_makes_only_what_is_missing(tmp_path: Path) -> None:
    config = WorldConfig(num_videos=3, kinds=("slide", "bounce"), height=64, width=96, seconds=2)
    paths = generate(tmp_path, config)
    assert [p.name for p in paths] == [
        "slide-000000.mp4",
        "bounce-000001.mp4",
        "slide-000002.mp4",
    ]
    assert read_truth(truth_path(paths[1])) == make(config, 1).truth
    before = [p.stat().st_mtime_ns for p in paths]
    truth_path(paths[1]).unlink()
    assert generate(tmp_path, config) == paths
    after = [p.stat().st_mtime_ns for p in paths]
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False, True]
    generate(tmp_path, dataclasses.replace(config, seed=1))
    assert read_truth(truth_path(paths[0])).seed == 1


def test_a_corpus_grows_without_changing_what_is_there() -> None:
    small, large = WorldConfig(num_videos=3), WorldConfig(num_videos=30)
    assert [small.digest(k) for k in range(3)] == [large.digest(k) for k in range(3)]


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="two_shots, not"):
        WorldConfig(kinds=("bounse",))
    with pytest.raises(ValueError, match="95x160"):
        WorldConfig(height=95, width=160)
    with pytest.raises(RunError, match="wider picture"):
        draw("collide", Span(48, 24, aspect=0.3), np.random.default_rng(0))
