"""Sounds that no contact makes: clicks, beeps, barks, syllables, plucked notes.

Each is one sound that begins as sharply as an impact, at its first sample, without another sudden
rise later, so that its time is all there is to say about its onset.
"""

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from avdata.pipeline.world.scene import SAMPLE_RATE
from avdata.pipeline.world.truth import ImpulseSound

Wave = Float[ndarray, " m"]


def click(rng: np.random.Generator) -> Wave:
    """A few milliseconds of noise."""
    t = _times(0.02)
    return float(rng.uniform(0.2, 0.4)) * _burst(t, 0.002, rng)


def beep(rng: np.random.Generator) -> Wave:
    """A steady tone that is switched on with a tick, and ends softly."""
    t = _times(rng.uniform(0.08, 0.25))
    tone = np.sin(2 * np.pi * rng.uniform(800, 2200) * t) * _ramps(t, 0.002, 0.01)
    switched_on: Wave = tone + 0.5 * _burst(t, 0.001, rng)
    return float(rng.uniform(0.1, 0.25)) * switched_on


def bark(rng: np.random.Generator) -> Wave:
    """Rough harmonics that fall in pitch."""
    t = _times(0.18)
    phase = 2 * np.pi * rng.uniform(350, 550) * (t - t**2)
    harmonics = np.arange(1, 7)
    voice = np.sin(phase[:, None] * harmonics) @ (1 / harmonics)
    rough = voice + 0.25 * rng.standard_normal(len(t))
    barked: Wave = rough * np.exp(-t / 0.05) * _ramps(t, 0.002, 0.02)
    return float(rng.uniform(0.15, 0.3)) * barked


def speech(rng: np.random.Generator) -> Wave:
    """One syllable: the burst of a consonant, then a vowel of two formants."""
    t = _times(rng.uniform(0.15, 0.25))
    pitch, formants = rng.uniform(100, 220), (rng.uniform(300, 800), rng.uniform(900, 2200))
    hz = pitch * np.arange(1, 15)
    gains = 0.05 + np.sum([np.exp(-(((hz - peak) / 150) ** 2)) for peak in formants], axis=0)
    phases = rng.uniform(0, 2 * np.pi, len(hz))
    vowel = np.sin(2 * np.pi * t[:, None] * hz + phases) @ gains * _ramps(t, 0.02, 0.05)
    syllable: Wave = vowel / math.sqrt(gains @ gains) + 1.5 * _burst(t, 0.004, rng)
    return float(rng.uniform(0.08, 0.15)) * syllable


def note(hz: float, rng: np.random.Generator) -> Wave:
    """A plucked string: the higher a harmonic, the sooner it is gone."""
    t = _times(0.6)
    harmonics = np.arange(1, 9)
    rings = np.sin(2 * np.pi * hz * t[:, None] * harmonics) * np.exp(-t[:, None] * 6 * harmonics)
    plucked: Wave = 0.06 * (rings @ (1 / harmonics) + 0.6 * _burst(t, 0.0015, rng))
    plucked *= _ramps(t, 0.0, 0.05)
    return plucked


def chord(hz: float, num_samples: int, rng: np.random.Generator) -> Wave:
    """Held for all the time, swelling slowly; no onset anywhere."""
    t = np.arange(num_samples) / SAMPLE_RATE
    tones = hz * np.array([1.0, 1.25, 1.5, 2.0])
    swells = 1 + 0.4 * np.sin(2 * np.pi * rng.uniform(0.2, 0.6, 4) * t[:, None])
    mix: Wave = 0.012 * (np.sin(2 * np.pi * t[:, None] * tones) * swells).sum(axis=1)
    mix *= _ramps(t, 0.3, 0.0)
    return mix


SOUNDS: dict[ImpulseSound, Callable[[np.random.Generator], Wave]] = {
    "click": click,
    "beep": beep,
    "bark": bark,
    "speech": speech,
}


def _times(seconds: float) -> Wave:
    return np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE


def _burst(t: Wave, decay_s: float, rng: np.random.Generator) -> Wave:
    """Noise that begins at once."""
    burst: Wave = rng.standard_normal(len(t)) * np.exp(-t / decay_s)
    return burst


def _ramps(t: Wave, rise_s: float, fall_s: float) -> Wave:
    """From 0 to 1 at the start, and back at the end; none where it would take no time."""
    ramps = np.ones_like(t)
    if rise_s:
        ramps *= np.minimum(1.0, t / rise_s)
    if fall_s:
        ramps *= np.minimum(1.0, t[::-1] / fall_s)
    return ramps
