"""Sound of impacts by modal synthesis, and a hum for what stands still.

A struck ball is a few damped sinusoids, the larger the deeper, with a burst of noise of a
millisecond or two in front, so that the onset is as sharp as the contact. Each begins at the
sample nearest to its time and sounds from where it happens.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Float32
from numpy import ndarray

from avdata.pipeline.world.scene import MATERIALS, SAMPLE_RATE, USUAL_RADIUS
from avdata.pipeline.world.truth import Contact

ATTACK_SECONDS = 0.0012
ATTACK_LEVEL = 0.6
"""Standard deviation of the burst's start against the amplitude of the lowest mode."""
USUAL_IMPULSE = 3.0
USUAL_AMPLITUDE = 0.3
NOISE_AMPLITUDE = 10 ** (-65 / 20)
PEAK = 0.95
HUM_FADE_SECONDS = 0.3


def impacts(
    contacts: Sequence[Contact],
    radii: Mapping[int, float],
    num_samples: int,
    rng: np.random.Generator,
) -> Float32[ndarray, "2 m"]:
    """All contacts that are heard over a faint noise; `radii` by body, in heights."""
    mix = NOISE_AMPLITUDE * rng.standard_normal((2, num_samples))
    for contact in contacts:
        # Those that are not heard are drawn, too: the others do not depend on them.
        ring = strike(contact.material, radii[contact.body], contact.impulse, rng)
        if contact.t_heard is None:
            continue
        begin = round(contact.t_heard * SAMPLE_RATE)
        ring = ring[: max(0, num_samples - begin)]
        mix[:, begin : begin + len(ring)] += gains(contact.x)[:, None] * ring
    return limited(mix)


def limited(mix: Float[ndarray, "2 m"]) -> Float32[ndarray, "2 m"]:
    """Quieter as a whole where its peak would be over `PEAK`."""
    loudest = float(np.abs(mix).max(initial=0.0))
    return (mix * min(1.0, PEAK / max(loudest, PEAK))).astype(np.float32)


def gains(x: float) -> Float[ndarray, "2"]:
    """Left and right at equal power; what is outside the picture sounds from its edge."""
    angle = (0.1 + 0.8 * min(1.0, max(0.0, x))) * math.pi / 2
    return np.array([math.cos(angle), math.sin(angle)])


def hum(num_samples: int, rng: np.random.Generator) -> Float32[ndarray, "2 m"]:
    """A voice-like tone with a slow swell, in the middle, without onsets."""
    t = np.arange(num_samples) / SAMPLE_RATE
    pitch, swell_hz = rng.uniform(105, 165), rng.uniform(1.5, 3.0)
    harmonics = np.arange(1, 7)
    phases = 2 * np.pi * pitch * t[:, None] * harmonics + rng.uniform(0, 2 * np.pi, 6)
    tone = 0.08 * (np.sin(phases) / harmonics).sum(axis=1)
    tone *= 1 + 0.25 * np.sin(2 * np.pi * swell_hz * t)
    tone *= np.minimum(1.0, t / HUM_FADE_SECONDS)
    noise = NOISE_AMPLITUDE * rng.standard_normal((2, num_samples))
    mix: Float32[ndarray, "2 m"] = (tone + noise).astype(np.float32)
    return mix


def silence(num_samples: int) -> Float32[ndarray, "2 m"]:
    """Digital silence."""
    return np.zeros((2, num_samples), np.float32)


def strike(
    material: str, radius: float, impulse: float, rng: np.random.Generator
) -> Float[ndarray, " m"]:
    """One ball struck once, until it has faded by 60 dB."""
    made_of = MATERIALS[material]
    t = np.arange(round(math.log(1000) * made_of.decay_s * SAMPLE_RATE)) / SAMPLE_RATE
    # The root of the size, so that every mode of every ball lies within 100..650 Hz.
    modes = np.array(made_of.modes_hz) * math.sqrt(USUAL_RADIUS / radius)
    order = np.arange(len(modes))
    rings = np.sin(2 * np.pi * modes * t[:, None]) * np.exp(
        -t[:, None] * (1 + 0.5 * order) / made_of.decay_s
    )
    burst = rng.standard_normal(len(t)) * np.exp(-t / ATTACK_SECONDS)
    amplitude = USUAL_AMPLITUDE * math.sqrt(impulse / USUAL_IMPULSE)
    struck: Float[ndarray, " m"] = amplitude * (rings @ 0.7**order + ATTACK_LEVEL * burst)
    return struck
