"""Turned pictures, by files whose header says so."""

from pathlib import Path

import numpy as np
import pytest

from avdata.pipeline.media.geometry import quarter_turns
from avdata.pipeline.media.limits import MediaLimits
from avdata.pipeline.media.stream import Picture, SourceStream, opened
from tests.pipeline.media import textured, times_at, write_movie

MATRIX = {0: (1, 0, 0, 1), 90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}
TURNED = (*MATRIX, 45, 1)


def turned(path: Path, degrees: int) -> Path:
    """A film whose track header turns it, by 90 degrees and the like or by an odd angle."""
    write_movie(path, [textured(1, 64, 96)] * 4, times_at(24, 4))
    angle = np.deg2rad(degrees)
    exact = (np.cos(angle), np.sin(angle), -np.sin(angle), np.cos(angle))
    a, b, c, d = (round(65536 * value) for value in MATRIX.get(degrees, exact))
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    fields = (a, b, 0, c, d, 0)
    for k, value in enumerate(fields):
        data[at + 4 * k : at + 4 * k + 4] = value.to_bytes(4, "big", signed=True)
    path.write_bytes(bytes(data))
    return path


def first(path: Path) -> Picture:
    with opened(path, 1) as container:
        return next(iter(SourceStream(container, MediaLimits()).pictures()))


@pytest.mark.parametrize("degrees", TURNED)
def test_a_turned_film_is_shown_upright_and_whole(tmp_path: Path, degrees: int) -> None:
    upright = first(turned(tmp_path / "0.mp4", 0)).luma()
    picture = first(turned(tmp_path / "a.mp4", degrees))
    # The header turns clockwise, as a player shows it.
    wanted = np.rot90(upright, -round(degrees / 90))
    assert picture.luma().shape == wanted.shape
    assert np.abs(picture.luma().astype(int) - wanted).mean() < 2
    assert picture.rgb(*wanted.shape).shape == (*wanted.shape, 3)
    assert quarter_turns(picture.frame) == -round(degrees / 90) % 4
