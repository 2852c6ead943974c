from pathlib import Path

import cv2
import numpy as np
import pytest
from jaxtyping import UInt8
from numpy import ndarray
from scenedetect import FrameTimecode
from scenedetect.detectors import AdaptiveDetector

from avdata.errors import UsageError
from avdata.pipeline.measure.dissolves import Transition
from avdata.pipeline.measure.proposals import PROPOSED_RATIO, proposed_cuts
from avdata.pipeline.measure.shots import ShotConfig, ShotFinder, shots
from avdata.pipeline.world.edits import edited
from tests.pipeline.media import picture, plain, textured, with_square

FPS = 24
Images = list[UInt8[ndarray, "h w 3"]]
ONE, OTHER = textured(2, low=10, high=150), textured(3, low=60, high=250)


def transitions(images: Images, config: ShotConfig | None = None) -> list[Transition]:
    finder = ShotFinder(FPS, config)
    for index, image in enumerate(images):
        finder.add(picture(index / FPS, image))
    return finder.finish()


def mixed(one: UInt8[ndarray, "h w 3"], other: UInt8[ndarray, "h w 3"], count: int) -> Images:
    shares = (np.arange(count) + 1) / (count + 1)
    return [(one + share * (other.astype(float) - one)).astype(np.uint8) for share in shares]


def moving(count: int) -> Images:
    return [with_square(ONE, 2 * k, 20) for k in range(count)]


def test_a_cut_is_found_at_its_first_frame() -> None:
    scenes = [ONE, OTHER, textured(4)]
    found = transitions([scene for scene in scenes for _ in range(24)])
    assert found == [Transition(24, 24), Transition(48, 48)]


def test_a_cut_is_found_after_a_picture_that_stood_for_long() -> None:
    """A picture of variable rate may be shown for longer than the shortest shot lasts."""
    finder = ShotFinder(FPS)
    times = [k / FPS for k in range(30)] + [31 / FPS + 2 + k / FPS for k in range(30)]
    first, second = ONE, OTHER
    for k, t in enumerate(times):
        finder.add(picture(t, first if k < 30 else second))
    assert finder.finish() == [Transition(30, 30)]


@pytest.mark.parametrize("held_s", [0.4, 3.0])
def test_every_slide_of_a_slide_show_is_a_shot(held_s: float) -> None:
    def slides(*images: UInt8[ndarray, "h w 3"]) -> list[Transition]:
        finder = ShotFinder(FPS)
        for k, image in enumerate(images):
            finder.add(picture(k * held_s, image))
        return finder.finish()

    assert slides(*(textured(k) for k in range(6))) == [Transition(k, k) for k in range(1, 6)]
    assert slides(*(with_square(ONE, 10 * k, 20, level=120) for k in range(6))) == []
    assert slides(*(plain(level) for level in (20, 20, 90, 200))) == []
    assert slides(plain(0), ONE, ONE, OTHER) == [Transition(1, 1), Transition(3, 3)]


def test_no_motion_is_a_cut() -> None:
    assert transitions(moving(40)) == []


@pytest.mark.parametrize("level", [0, 255])
@pytest.mark.parametrize("length", [1, 2, 5])
def test_a_flash_or_a_black_frame_is_no_cut(level: int, length: int) -> None:
    images = moving(72)
    images[30 : 30 + length] = [plain(level)] * length
    assert transitions(images) == []


def test_a_strobe_is_no_cut() -> None:
    images = [image if k % 3 or k < 20 else plain(250) for k, image in enumerate(moving(72))]
    assert transitions(images) == []


def test_a_lamp_is_no_cut() -> None:
    dark = [(0.4 * image).astype(np.uint8) for image in moving(30)]
    assert transitions(dark + moving(60)[30:]) == []


@pytest.mark.parametrize("hold", [2, 30])
@pytest.mark.parametrize("same", [True, False])
def test_a_fade_through_black_is_one_transition(hold: int, same: bool) -> None:
    black, after = plain(0), ONE if same else OTHER
    images = [ONE] * 30 + mixed(ONE, black, 10) + [black] * hold
    images += mixed(black, after, 10) + [after] * 30
    (found,) = transitions(images)
    assert abs(found.begin - 30) <= 1
    assert abs(found.end - (50 + hold)) <= 1


def test_fading_in_at_the_start_and_out_at_the_end_is_no_shot_more() -> None:
    black = plain(0)
    images = [black] * 10 + mixed(black, ONE, 10) + [ONE] * 30 + mixed(ONE, black, 10)
    assert transitions([*images, *[black] * 10]) == []


@pytest.mark.parametrize("length", [8, 20, 36])
def test_a_dissolve_is_one_transition(length: int) -> None:
    (found,) = transitions([ONE] * 40 + mixed(ONE, OTHER, length) + [OTHER] * 40)
    assert abs(found.begin - 40) <= 3
    assert abs(found.end - (40 + length)) <= 3


def test_shots_tile_the_source_but_for_what_fades() -> None:
    times = [0.0, 0.1, 0.2, 0.35, 0.4]
    assert shots(times, 0.5, []) == [(0.0, 0.5)]
    cuts = [Transition(1, 1), Transition(3, 3)]
    assert shots(times, 0.5, cuts) == [(0.0, 0.1), (0.1, 0.35), (0.35, 0.5)]
    assert shots(times, 0.5, [Transition(1, 3)]) == [(0.0, 0.1), (0.35, 0.5)]


def test_edits_of_the_small_world_are_found() -> None:
    """`benchmarks/shots.py` has the figures; here each of a few must be seen, and no other."""
    num_found = num_true = num_right = 0
    for seed in range(6):
        video = edited(seed, num_shots=4, height=96)
        found = transitions(list(video.frames))
        middles = [(one.begin + one.end) / 2 for one in found]
        num_right += sum(
            any(edit.begin - 2 <= middle <= edit.end + 2 for middle in middles)
            for edit in video.edits
        )
        num_found, num_true = num_found + len(found), num_true + len(video.edits)
    assert 2 * num_right / (num_found + num_true) >= 0.92


def test_edited_videos_are_the_same_every_time() -> None:
    one, again = edited(5, num_shots=2, height=48), edited(5, num_shots=2, height=48)
    np.testing.assert_array_equal(one.frames, again.frames)
    assert one.edits == again.edits


def test_a_network_that_is_not_there_is_named(tmp_path: Path) -> None:
    gone = ShotConfig(transnet=str(tmp_path / "none.onnx"))
    with pytest.raises(UsageError, match=r"must be an ONNX file, .*none\.onnx is none"):
        ShotFinder(25, gone)


def test_the_detector_finds_around_large_changes_what_it_finds_in_all() -> None:
    """Random walks of light, so that large changes lie close together and at both ends."""
    random = np.random.default_rng(0)
    for _ in range(20):
        jumps = random.choice([0.0, 3.0, 14.0, 16.0, 60.0], 80, p=[0.3, 0.4, 0.1, 0.1, 0.1])
        levels = np.abs(np.cumsum(jumps * random.choice([-1, 1], 80))) % 200
        frames = (levels[:, None] + random.integers(0, 9, (80, 32 * 18))).astype(np.uint8)
        detector = AdaptiveDetector(PROPOSED_RATIO, min_scene_len=1, luma_only=True)
        wanted = []
        for index, frame in enumerate(frames):
            grey = cv2.cvtColor(frame.reshape(18, 32), cv2.COLOR_GRAY2BGR)
            wanted += detector.process_frame(FrameTimecode(index, float(FPS)), grey)
        assert proposed_cuts(frames, float(FPS)) == [cut.frame_num for cut in wanted]
        assert wanted


def test_a_network_in_place_of_the_detector(tmp_path: Path) -> None:
    """A network of the right signature whose logit is the mean red of a frame less 128: it takes
    every bright frame for a transition."""
    onnx = pytest.importorskip("onnx", reason="onnx makes the network of this test")
    pytest.importorskip("onnxruntime", reason="onnxruntime runs it")
    helper, floats = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["frames", "axes"], ["level"], keepdims=0),
            helper.make_node("Sub", ["level", "half"], ["single"]),
            helper.make_node("Unsqueeze", ["single", "last"], ["logits"]),
        ],
        "tiny",
        [helper.make_tensor_value_info("frames", floats, [1, 100, 27, 48, 3])],
        [helper.make_tensor_value_info("logits", floats, [1, 100, 1])],
        [
            helper.make_tensor("axes", onnx.TensorProto.INT64, [3], [2, 3, 4]),
            helper.make_tensor("half", floats, [], [128.0]),
            helper.make_tensor("last", onnx.TensorProto.INT64, [1], [2]),
        ],
    )
    path = tmp_path / "tiny.onnx"
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)
    images = [plain(20)] * 230
    for begin, end in ((40, 41), (120, 130)):
        images[begin:end] = [plain(240)] * (end - begin)
    found = transitions(images, ShotConfig(transnet=str(path)))
    assert found == [Transition(41, 41), Transition(121, 130)]
    assert ShotConfig(transnet=str(path)).digest != ShotConfig().digest
