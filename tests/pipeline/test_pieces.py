"""A film is measured some of it at a time: what is found does not depend on how much."""

from pathlib import Path

import numpy as np
import pytest
from scipy.signal import resample_poly

from avdata.pipeline.measure import contact, dissolves, sound, spectrum, speech, strikes
from avdata.pipeline.measure.motion import FlowMeter
from avdata.pipeline.measure.resampled import Resampled
from avdata.pipeline.measure.source import IngestConfig, measure_source
from avdata.pipeline.media import spool, stream
from avdata.pipeline.media.alive import told
from avdata.pipeline.media.limits import MediaLimits
from avdata.pipeline.media.spool import Spool
from tests.pipeline.media import (
    Sound,
    bouncing_ball,
    clicks,
    picture,
    plain,
    textured,
    times_at,
    write_movie,
)

CONFIG = IngestConfig(num_frames=17)


@pytest.mark.parametrize("limit", [0, 100, 1 << 20])
def test_a_spool_gives_back_what_it_was_given(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "IN_MEMORY_BYTES", limit)
    rows = np.random.default_rng(0).standard_normal((100, 3, 2)).astype(np.float32)
    kept = Spool(np.float32, (3, 2))
    for first in range(0, 100, 7):
        kept.append(rows[first : first + 7])
        np.testing.assert_array_equal(kept[first : first + 9], rows[first : first + 7])
    assert len(kept) == 100
    for span in (slice(None), slice(13, 77), slice(90, 200), slice(50, 50), slice(-5, None)):
        np.testing.assert_array_equal(kept[span], rows[span])


@pytest.mark.parametrize(("up", "down"), [(1, 8), (160, 441), (1, 3), (1, 1)])
def test_a_piece_of_another_rate_is_that_piece_of_the_whole(up: int, down: int) -> None:
    chance = np.random.default_rng(0)
    samples = chance.standard_normal(30_011).astype(np.float32)
    whole, pieces = resample_poly(samples, up, down), Resampled(samples, up, down)
    assert len(pieces) == len(whole)
    for low, high in np.sort(chance.integers(0, len(whole) + 1, (30, 2)), axis=1).tolist():
        np.testing.assert_array_equal(pieces[low:high], whole[low:high])
    np.testing.assert_array_equal(pieces[:], whole)


def test_what_is_measured_does_not_depend_on_how_much_is_read_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = [*bouncing_ball(), *([plain(90)] * 6), *bouncing_ball()[::-1]]
    heard = Sound(clicks([0.75, 1.5, 2.9, 3.3, 4.1], len(pictures) / 24))
    path = write_movie(tmp_path / "a.mp4", pictures, times_at(24, len(pictures)), heard)
    whole = measure_source(path, "uri", CONFIG)
    assert sum(len(clip.events) for clip in whole) > 0
    monkeypatch.setattr(spool, "IN_MEMORY_BYTES", 1000)
    monkeypatch.setattr(contact, "FRAMES_AT_ONCE", 5)
    monkeypatch.setattr(dissolves, "AT_ONCE", 3)
    monkeypatch.setattr(sound, "HOPS_AT_ONCE", 64)
    monkeypatch.setattr(strikes, "HOPS_AT_ONCE", 10)
    monkeypatch.setattr(spectrum, "WINDOWS_AT_ONCE", 8)
    monkeypatch.setattr(speech, "STRETCHES_AT_ONCE", 1)
    assert measure_source(path, "uri", CONFIG) == whole


def test_the_same_frames_move_alike_wherever_they_lie_in_memory() -> None:
    """A source that is measured twice has the same rows, to the last bit."""
    wide, held, found = textured(1, 180, 400), [], set()
    pan = [picture(k / 24, np.ascontiguousarray(wide[:, 7 * k : 7 * k + 320])) for k in range(4)]
    for size in range(16, 1000, 16):
        held.append(np.zeros(size, np.uint8))  # So that what comes next lies elsewhere.
        meter = FlowMeter()
        for one in pan:
            meter.add(one)
        found.add(tuple(one.camera_speed for one in meter.motions[:]))
    assert len(found) == 1


def test_a_film_tells_that_it_gets_on(tmp_path: Path) -> None:
    path = write_movie(tmp_path / "a.mp4", [plain(50)] * 36, times_at(1, 36))
    words: list[None] = []
    with told(lambda: words.append(None)), stream.opened(path, 1) as container:
        assert len(list(stream.SourceStream(container, MediaLimits()).pictures())) == 36
    assert len(words) == 3
