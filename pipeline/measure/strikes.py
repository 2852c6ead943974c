"""Which onsets of a sound are strikes.

What is struck is given all its energy at once and then left alone: its sound is loudest at once and
dies away, or rings in a few pure tones while it does. A voice, an engine, a roll of thunder are
driven: they swell, or last. The picture is not asked.
"""

import itertools
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from avdata.pipeline.media.sound import Samples

HOP_SECONDS = 0.005
MAX_ATTACK_SECONDS = 0.03
"""Within which the level is 3 dB from its top."""
TOP_SECONDS = 0.08
DECAY_SECONDS = 0.15
DECAY_DB = 10.0
"""To a tenth of the power, in that time or until the next onset."""
RINGING_DECAY_DB = 2.0
"""What rings may take longer: metal and glass lose as little as this in that time."""
NUM_TONES = 6
PURE_SHARE = 0.9
"""Share of the power that lies in so many tones when something rings; of noise it is a third."""
TONE_SAMPLES = 4096
SILENCE_POWER = 1e-9
HOPS_AT_ONCE = 2000
"""Memory does not grow with the source."""


@dataclass(frozen=True, slots=True)
class Strike:
    """An onset that sounds struck."""

    t: float
    level_db: float
    """Of its loudest 10 ms, dBFS."""


def strikes(sound: Samples, rate: int, onsets_s: list[float]) -> list[Strike]:
    """Those of the onsets (in order, seconds from the first sample) that are strikes."""
    hop = round(HOP_SECONDS * rate)
    levels = _levels(sound, hop)
    found = []
    for onset, following in itertools.pairwise([*onsets_s, np.inf]):
        begin = int(onset * rate / hop)
        until = min(onset + DECAY_SECONDS, following - 2 * HOP_SECONDS)
        after = levels[begin : max(begin + 3, int(until * rate / hop))]
        if len(after) == 0:
            continue
        early = after[: round(TOP_SECONDS / HOP_SECONDS)]
        top = int(early.argmax())
        attack = int(np.argmax(early >= early[top] - 3.0)) * HOP_SECONDS
        decay = float(early[top] - after[top:][-6:].mean())
        rings = decay >= RINGING_DECAY_DB and _rings(sound, rate, onset)
        if attack <= MAX_ATTACK_SECONDS and (decay >= DECAY_DB or rings):
            found.append(Strike(onset, float(early[top])))
    return found


def _levels(sound: Samples, hop: int) -> Float[ndarray, " n"]:
    """dBFS of every 10 ms that end with a hop."""
    power = np.zeros(len(sound) // hop)
    for first in range(0, len(power), HOPS_AT_ONCE):
        last = min(first + HOPS_AT_ONCE, len(power))
        hops = sound[first * hop : last * hop].reshape(-1, hop)
        power[first:last] = np.square(hops, dtype=np.float64).mean(axis=1)
    both = (power + np.r_[power[:1], power[:-1]]) / 2
    return np.asarray(10 * np.log10(both + SILENCE_POWER))


def _rings(sound: Samples, rate: int, onset: float) -> bool:
    """Whether the 0.1 s after the attack are a few pure tones."""
    begin = round((onset + MAX_ATTACK_SECONDS) * rate)
    piece = sound[begin : begin + TONE_SAMPLES]
    spectrum = np.fft.rfft(piece * np.hanning(len(piece)), TONE_SAMPLES)
    power = np.square(np.abs(spectrum[15:]))  # Under 160 Hz a hum would pass for a tone.
    total, tones = float(power.sum()), 0.0
    for _ in range(NUM_TONES):
        peak = int(power.argmax())
        around = power[max(0, peak - 2) : peak + 3]
        tones += float(around.sum())
        around[:] = 0.0
    return tones >= PURE_SHARE * max(total, SILENCE_POWER)
