"""What variants of the generated world do to its pictures, against their truth."""

import dataclasses
import math
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from jaxtyping import Bool, UInt8
from numpy import ndarray

from avdata.pipeline.world import render
from avdata.pipeline.world.corpus import WorldConfig, generate, make, read_truth, truth_path
from avdata.pipeline.world.motion import motion_class, speeds
from avdata.pipeline.world.scene import Ball, Camera, Look, Occluder, Room, Shot, Span
from avdata.pipeline.world.truth import Trajectory
from avdata.pipeline.world.variants import NAMES, VariantShares

PLAIN = WorldConfig(height=96, width=160)


def config(kind: str, *names: str) -> WorldConfig:
    shares = VariantShares(**dict.fromkeys(names, 1.0))
    return dataclasses.replace(PLAIN, kinds=(kind,), variants=shares)


def colourful(frame: UInt8[ndarray, "h w 3"]) -> Bool[ndarray, "h w"]:
    """Balls are, rooms and columns are not."""
    found: Bool[ndarray, "h w"] = np.ptp(frame.astype(int), axis=2) > 64
    return found


def around(image: UInt8[ndarray, "h w 3"], ball: Trajectory, k: int) -> UInt8[ndarray, "a b 3"]:
    """The square that a ball fills in frame k of its shot."""
    height, width, _ = image.shape
    x, y, reach = ball.xs[k] * width, ball.ys[k] * height, ball.radius * height
    return image[round(y - reach) : round(y + reach), round(x - reach) : round(x + reach)]


@pytest.mark.parametrize("kind", ["bounce", "collide", "pan", "silent", "two_shots"])
@pytest.mark.parametrize("index", range(2))
def test_what_touches_is_wholly_hidden_or_wholly_seen(kind: str, index: int) -> None:
    plain, passed = make(config(kind), index), make(config(kind, "occlusion"), index)
    truth = passed.truth
    assert truth.variants == ["occlusion"]
    assert any(contact.occluded for contact in truth.contacts)
    for contact in truth.contacts:
        ball = truth.trajectories[contact.body]
        first = truth.frame_times.index(truth.shots[contact.shot][0])
        near = np.flatnonzero(np.abs(np.array(truth.frame_times) - contact.t) < 0.1)
        assert len(near) >= 4
        for k in near.tolist():
            before, after = (around(v.frames[k], ball, k - first) for v in (plain, passed))
            assert colourful(before).any()
            if contact.occluded:
                assert not colourful(after).any()
            else:
                np.testing.assert_array_equal(after, before)
    hidden = [contact for contact in truth.contacts if contact.occluded]
    assert not any(contact.on_screen for contact in hidden)
    assert not any(contact in truth.evident() for contact in hidden)
    if kind != "silent":
        assert {contact.t for contact in hidden} <= set(truth.misleading())


def test_a_column_is_drawn_where_the_truth_says() -> None:
    plain, passed = make(config("bounce"), 0), make(config("bounce", "occlusion"), 0)
    (passage,) = passed.truth.passages
    checked = 0
    for before, after, x in zip(plain.frames, passed.frames, passage.xs, strict=True):
        columns = np.flatnonzero((before != after).any(axis=2).mean(axis=0) > 0.9)
        left, right = ((x + side * passage.width / 2) * 160 for side in (-1, 1))
        if left > 1 and right < 159:
            assert columns.min() == pytest.approx(left, abs=1.5)
            assert columns.max() + 1 == pytest.approx(right, abs=1.5)
            checked += 1
    assert checked > 3


@pytest.mark.parametrize("names", [("shake",), ("drift",), ("shake", "drift")])
@pytest.mark.parametrize("kind", ["slide", "bounce"])
def test_what_stands_still_moves_by_what_the_camera_does(kind: str, names: tuple[str, ...]) -> None:
    video = make(config(kind, *names), 1)
    truth = video.truth
    assert truth.variants == [name for name in NAMES if name in names]
    # Above the balls there is nothing but the wall.
    luma = video.frames[:, : (96 if kind == "slide" else 30)].mean(axis=3)
    window = cv2.createHanningWindow(luma.shape[:0:-1], cv2.CV_64F)
    camera = np.stack([np.multiply(truth.camera_xs, 160), np.multiply(truth.camera_ys, 96)], axis=1)
    wrong = []
    for k in range(0, len(luma) - 5, 5):
        if (
            kind == "slide"
            or not colourful(video.frames[[k, k + 5], :32].reshape(-1, 160, 3)).any()
        ):
            moved, _ = cv2.phaseCorrelate(luma[k], luma[k + 5], window)
            wrong.append(np.add(moved, camera[k + 5] - camera[k]))
    assert len(wrong) > 5
    # Its own error is near half a pixel where one picture lies between pixels of the other.
    assert np.abs(wrong).max() < 0.5
    assert np.abs(np.mean(wrong, axis=0)).max() < 0.15
    assert np.ptp(truth.camera_xs) > 0
    assert (np.ptp(truth.camera_ys) > 0) == ("shake" in names)


def test_a_pan_by_one_pixel_a_frame_moves_the_picture_by_one_pixel_a_frame() -> None:
    look = Look((0.9, 0.9, 0.9), (0.5, 0.5, 0.5), seed=1, slide=True)
    shot = Shot(Span(24, 24, 5 / 3), Room(0.9), look, camera=Camera(pan=24 / 96))
    frames = render.frames(shot, 96, 160)
    np.testing.assert_array_equal(frames[1:, :, :-1], frames[:-1, :, 1:])
    assert (frames[0] != frames[-1]).any()


@pytest.mark.parametrize("kind", ["bounce", "collide", "offscreen"])
def test_a_shaken_camera_moves_contacts_but_does_not_make_or_lose_any(kind: str) -> None:
    still, shaken = (make(config(kind, *names), 2).truth for names in ((), ("shake", "drift")))
    assert [c.t for c in still.contacts] == [c.t for c in shaken.contacts]
    assert [c.on_screen for c in still.contacts] == [c.on_screen for c in shaken.contacts]
    for ball, moved in zip(still.trajectories, shaken.trajectories, strict=True):
        np.testing.assert_allclose(np.add(moved.xs, shaken.camera_xs), ball.xs, atol=1e-12)
        np.testing.assert_allclose(np.add(moved.ys, shaken.camera_ys), ball.ys, atol=1e-12)
    np.testing.assert_allclose(shaken.top_speeds, still.top_speeds, atol=1e-9)


def test_a_variable_rate_shows_some_of_the_same_frames_at_their_own_times(tmp_path: Path) -> None:
    small = dataclasses.replace(config("two_shots", "variable_rate"), num_videos=1, seconds=2.5)
    (path,) = generate(tmp_path, small)
    truth = read_truth(truth_path(path))
    with av.open(str(path)) as file:
        shown = [frame.time for frame in file.decode(video=0)]
        assert file.streams.audio[0].start_time == 0
    assert shown == pytest.approx(truth.frame_times, abs=1e-6)
    numbers = [round(t * truth.fps) for t in truth.frame_times]
    assert numbers[0] == 0
    assert numbers[-1] == round(truth.seconds * truth.fps) - 1
    assert len({*np.diff(numbers)}) > 1
    whole = make(dataclasses.replace(small, variants=VariantShares()), 0)
    part = make(small, 0)
    np.testing.assert_array_equal(part.frames, whole.frames[numbers])
    np.testing.assert_array_equal(part.samples, whole.samples)
    assert part.truth.contacts == whole.truth.contacts
    assert part.truth.shots == whole.truth.shots
    assert {start for start, _ in truth.shots} <= set(truth.frame_times)
    for ball, full in zip(part.truth.trajectories, whole.truth.trajectories, strict=True):
        assert len(ball.xs) < len(full.xs)
        assert set(ball.xs) <= set(full.xs)


def straight(speed: float, spin: float = 0.0, camera: Camera | None = None) -> Shot:
    """One ball that flies across."""
    span = Span(48, 24, 5 / 3)
    x = 0.8 + speed * (span.times - 1)
    track = np.stack([x, np.full(48, 0.5), spin * span.times], axis=1)
    look = Look((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), 0)
    ball = (Ball(0.1, "wood"),)
    return Shot(span, Room(0.9), look, ball, (track,), camera=camera or Camera())


def test_speed_is_that_of_the_thing_and_not_of_the_camera() -> None:
    for camera in (Camera(), Camera(pan=0.2)):
        area, top = speeds(straight(0.3, camera=camera))
        np.testing.assert_allclose(top, 0.3)
        np.testing.assert_allclose(area, 0.3 * math.pi * 0.1**2 / (5 / 3))
    _, turning = speeds(straight(0.0, spin=2.0))
    # The root mean square over a disc of radius r that turns at w is w r / sqrt(2).
    np.testing.assert_allclose(turning, 2.0 * 0.1 / math.sqrt(2))


def test_what_is_hidden_or_beside_the_picture_does_not_move() -> None:
    behind = dataclasses.replace(straight(0.3), occluder=Occluder(0.8, 0.0, 1.2))
    away = dataclasses.replace(straight(0.3), camera=Camera(start=5.0))
    for shot in (behind, away):
        area, top = speeds(shot)
        assert not area.any()
        assert not top.any()


@pytest.mark.parametrize(
    ("speed", "spin", "label"), [(0.1, 0.0, "static"), (0.5, 0.0, "small"), (0.5, 30.0, "large")]
)
def test_the_class_of_motion_follows_the_speed(speed: float, spin: float, label: str) -> None:
    assert motion_class(*speeds(straight(speed, spin))) == label


def test_a_clip_has_a_motion_of_its_own() -> None:
    truth = make(config("bounce"), 0).truth
    pairs = zip(truth.top_speeds, truth.frame_times, strict=True)
    half = dataclasses.replace(truth, top_speeds=[speed * (t < 2) for speed, t in pairs])
    assert half.motion_between(0.0, 2.0) == truth.motion_between(0.0, 2.0) != "static"
    assert half.motion_between(2.0, 4.5) == "static"
    with pytest.raises(ValueError, match=r"from 9.0 s"):
        truth.motion_between(9.0, 10.0)
