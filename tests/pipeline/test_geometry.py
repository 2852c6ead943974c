"""Turned pictures, by files whose header says so."""

import subprocess
import sys
from pathlib import Path
from typing import Literal

import imageio_ffmpeg
import numpy as np
import pytest

from avdata.pipeline.media.geometry import Fit, Place, fitted, quarter_turns
from avdata.pipeline.media.limits import MediaLimits
from avdata.pipeline.media.stream import Picture, SourceStream, opened
from tests.pipeline.media import textured, times_at, write_movie

MATRIX = {0: (1, 0, 0, 1), 90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}
MIRRORED = [(a, b, -c, -d) for a, b, c, d in MATRIX.values()]
TURNED = (*MATRIX, 45, 1)


def turned(path: Path, degrees: int) -> Path:
    """A film whose track header turns it, by 90 degrees and the like or by an odd angle."""
    angle = np.deg2rad(degrees)
    exact = (np.cos(angle), np.sin(angle), -np.sin(angle), np.cos(angle))
    return displayed(path, MATRIX.get(degrees, exact))


def displayed(path: Path, matrix: tuple[float, ...]) -> Path:
    """A film whose track header has this display matrix."""
    write_movie(path, [textured(1, 64, 96)] * 4, times_at(24, 4))
    a, b, c, d = (round(65536 * value) for value in matrix)
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


def flags(path: Path) -> list[str]:
    with opened(path, 1) as container:
        stream = SourceStream(container, MediaLimits())
        assert list(stream.pictures())
        return stream.media().flags


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


@pytest.mark.parametrize("matrix", [*MATRIX.values(), *MIRRORED])
def test_a_picture_is_turned_and_mirrored_as_ffmpeg_does_it(
    tmp_path: Path, matrix: tuple[int, ...]
) -> None:
    path = displayed(tmp_path / "a.mp4", matrix)
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(path), "-frames:v", "1"]
    shown = subprocess.run(
        [*command, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"], capture_output=True, check=True
    ).stdout
    height, width = (96, 64) if matrix[0] == 0 else (64, 96)
    wanted = np.frombuffer(shown, np.uint8).reshape(height, width, 3).astype(int)
    picture = first(path)
    for found in (picture.rgb(height, width), fitted(picture.frame, 1.0, height, width)):
        assert np.abs(found - wanted).mean() < 2
    assert np.abs(picture.luma() - wanted.mean(axis=2)).mean() < 2
    assert ("mirrored" in flags(path)) == (matrix in MIRRORED)


def test_a_frame_is_free_as_soon_as_it_is_dropped(tmp_path: Path) -> None:
    frame = first(displayed(tmp_path / "a.mp4", MIRRORED[1])).frame
    before = sys.getrefcount(frame)
    fitted(frame, 1.0, 96, 64)
    assert sys.getrefcount(frame) == before


def halves(path: Path, height: int, width: int) -> Picture:
    """Top left dark, bottom right bright, in a picture of this size."""
    picture = np.full((height, width, 3), 128, np.uint8)
    picture[: height // 4, : width // 4] = 40
    picture[-(height // 4) :, -(width // 4) :] = 220
    write_movie(path, [picture] * 4, times_at(24, 4))
    return first(path)


How = Literal["crop", "pad", "stretch"]
Size = tuple[int, int]
SHAPES: list[Size] = [(64, 96), (96, 64), (64, 64), (32, 128)]


@pytest.mark.parametrize("how", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("size", SHAPES)
@pytest.mark.parametrize("shown", SHAPES)
def test_every_fit_gives_the_size_and_a_picture_of_that_shape_whole(
    tmp_path: Path,
    how: Literal["crop", "pad", "stretch"],
    size: tuple[int, int],
    shown: tuple[int, int],
) -> None:
    frame = halves(tmp_path / "a.mp4", *shown).frame
    found = fitted(frame, 1.0, *size, Fit(how)).astype(int)
    assert found.shape == (*size, 3)
    if size[0] * shown[1] == size[1] * shown[0]:
        assert np.abs(found - fitted(frame, 1.0, *size, Fit("stretch"))).max() <= 1
    black = (found.max(axis=2) < 16).mean()
    covered = min(size[0] / shown[0], size[1] / shown[1]) ** 2 * shown[0] * shown[1]
    share = 1 - covered / (size[0] * size[1]) if how == "pad" else 0.0
    assert black == pytest.approx(share, abs=0.05)
    if how != "crop":  # All of the picture is there.
        lit = found[found.max(axis=2) >= 16]
        assert lit.min() < 70
        assert lit.max() > 190


@pytest.mark.parametrize(("at", "dark", "bright"), [("start", True, False), ("end", False, True)])
@pytest.mark.parametrize(("shown", "size"), [((64, 128), (64, 64)), ((128, 64), (64, 64))])
def test_a_cut_leaves_the_part_asked_for(
    tmp_path: Path,
    at: Place,
    dark: bool,
    bright: bool,
    shown: tuple[int, int],
    size: tuple[int, int],
) -> None:
    frame = halves(tmp_path / "a.mp4", *shown).frame
    found = fitted(frame, 1.0, *size, Fit("crop", at))
    assert (found.min() < 70, found.max() > 190) == (dark, bright)
    padded = fitted(frame, 1.0, *size, Fit("pad", at)).max(axis=2) >= 16
    rows, columns = np.flatnonzero(padded.any(axis=1)), np.flatnonzero(padded.any(axis=0))
    edge = (rows[0], columns[0]) if at == "start" else (rows[-1] - 63, columns[-1] - 63)
    assert edge == (0, 0)
