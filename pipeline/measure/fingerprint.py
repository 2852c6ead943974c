"""Perceptual fingerprints: what of a picture and of a sound outlives scaling and lossy coding.

Picture, every 0.25 s, 64 bits: the signs of brightness between neighbouring cells (dHash,
https://www.hackerfactor.com/blog/index.php?/archives/529-Kind-of-Like-That.html) say which scene,
and the cells that changed since the last print say which moment of it, as in Oostveen, Kalker and
Haitsma, "Feature Extraction and a Database Strategy for Video Fingerprinting" (2002).

Sound, every 46 ms, 32 bits: the signs of the energy differences along both frequency and time of
33 bands between 300 and 2000 Hz in windows of 0.37 s: Haitsma and Kalker, "A Highly Robust Audio
Fingerprinting System" (ISMIR 2002). Prints of both kinds lie on the source's own clock, and 0
stands for an instant with nothing to recognise.
"""

import cv2
import numpy as np
from jaxtyping import Float32, Int64, UInt8
from numpy import ndarray

PICTURE_SECONDS = 0.25
"""Copies may be apart by half of this where their clocks differ, a share of what moves."""
ROWS, COLUMNS = 4, 8
CELL = 8
"""Pixels of a cell's side in the small picture; averaging takes off grain and coding noise."""
MIN_STEP = 1.5 / 255
"""Difference of luma between neighbouring cells that is no noise."""
MIN_CHANGE = 2.5 / 255
"""Change of a cell over the mean change of all: grain and flicker change everything alike."""
TEMPORAL_BITS = (1 << 32) - 1

SOUND_BANDS_HZ = np.geomspace(300.0, 2000.0, 34)
SOUND_LAG = 4
"""Windows between the two that a bit compares."""
MIN_BAND_POWER = 1e-9
"""Mean power in the bands (-90 dBFS) under which there is nothing to recognise."""


def small_picture(luma: UInt8[ndarray, "h w"]) -> Float32[ndarray, "rows columns"]:
    """The picture at the size that prints are made from, luma in 0..1; any aspect becomes 2:1."""
    size = (CELL * (COLUMNS + 1), CELL * ROWS)
    shrunk = cv2.resize(luma, size, interpolation=cv2.INTER_AREA)
    return np.asarray(shrunk, np.float32) / 255


def picture_print(
    small: Float32[ndarray, "rows columns"], before: Float32[ndarray, "rows columns"] | None
) -> int:
    """32 bits of the scene over 32 bits of what changed since `before`, as a signed 64-bit number;
    0 for an empty picture.
    """
    cells = cv2.resize(small, (COLUMNS + 1, ROWS), interpolation=cv2.INTER_AREA)
    if np.ptp(cells) <= MIN_STEP:
        return 0
    scene = np.diff(cells, axis=1) > MIN_STEP
    changed = np.zeros((ROWS, COLUMNS), bool)
    if before is not None:
        change = cv2.resize(
            cv2.absdiff(small, before), (COLUMNS, ROWS), interpolation=cv2.INTER_AREA
        )
        changed = change > change.mean() + MIN_CHANGE
    bits = np.packbits(np.concatenate([scene.ravel(), changed.ravel()]))
    return int(bits.view(">i8")[0])


def sound_prints(bands: Float32[ndarray, "n 33"]) -> Int64[ndarray, " n"]:
    """32 bits a window from the power in its bands; 0 where it is silent or does not change."""
    prints = np.zeros(len(bands), np.int64)
    if len(bands) <= SOUND_LAG:
        return prints
    along = bands[:, :-1] - bands[:, 1:]
    bits = along[SOUND_LAG:] > along[:-SOUND_LAG]
    packed = np.packbits(bits, axis=1).view(">u4")[:, 0].astype(np.int64)
    loud = bands.sum(axis=1) > MIN_BAND_POWER
    prints[SOUND_LAG:] = np.where(loud[SOUND_LAG:] & loud[:-SOUND_LAG], packed, 0)
    return prints
