"""What a video sounds like, and the truth about it: contacts, early or late, another video's in
their place, and sounds from nowhere in the picture.

Sounds that are no contact keep away from all contacts, seen or heard, and from each other, so that
nothing that is measured can be taken for both.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Float, Float32
from numpy import ndarray

from avdata.pipeline.world import distractors, sound
from avdata.pipeline.world.scene import SAMPLE_RATE
from avdata.pipeline.world.truth import Contact, Impulse
from avdata.pipeline.world.variants import Chosen

LAG_STEPS = (4, 30)
LAG_STEP_MS = 10
"""A whole number of samples."""
CUT_SECONDS = 0.05
"""A contact that would sound later than this before the end is not heard at all."""
CLEAR_SECONDS = 0.1
IN_STEP_SECONDS = 0.05
"""A wrong sound has nothing so near to a contact that is seen."""
NUM_DISTRACTORS = (3, 6)
NUM_PLACES = 100
BEAT_SECONDS = (0.28, 0.45)
CHORD_HZ = (110.0, 220.0)
NOTES = (2.0, 2.25, 2.5, 3.0, 3.375, 4.0)
"""Of the pentatonic scale, over the chord's lowest tone."""


@dataclass(frozen=True, slots=True)
class Extra:
    """A sound that no contact makes."""

    impulse: Impulse
    wave: Float[ndarray, " m"]
    x: float
    """Where it comes from: 0 left, 1 right."""


@dataclass(frozen=True, slots=True)
class Heard:
    """All that sounds."""

    contacts: list[Contact]
    """With the times at which they are heard."""
    lag_ms: float | None = 0.0
    sound_of: int | None = None
    donor: list[Contact] = field(default_factory=list)
    """Contacts of the video `sound_of`."""
    extras: list[Extra] = field(default_factory=list)
    bed: Float[ndarray, " m"] | None = None
    """Music, at least as long as the video."""

    @property
    def impulses(self) -> list[Impulse]:
        """In order of time; none of them is a contact of this video."""
        strikes = [Impulse(contact.t, "strike") for contact in self.donor]
        added = [extra.impulse for extra in self.extras]
        return sorted([*strikes, *added], key=lambda impulse: impulse.t)


def hear(
    contacts: list[Contact],
    variants: Chosen,
    seconds: float,
    donors: Iterable[tuple[int, list[Contact]]],
) -> Heard:
    """With those of the variants that are heard; `donors` are other videos and their contacts."""
    heard, names = Heard(contacts), variants.names
    if "lag" in names:
        heard = lagged(heard, seconds, variants.dice("lag"))
    if "wrong_sound" in names:
        heard = swapped(heard, donors)
    if "distractors" in names:
        heard = distracted(heard, seconds, variants.dice("distractors"))
    if "music" in names:
        heard = accompanied(heard, seconds, variants.dice("music"))
    return heard


def lagged(heard: Heard, seconds: float, rng: np.random.Generator) -> Heard:
    """All of it early or late."""
    steps = int(rng.integers(LAG_STEPS[0], LAG_STEPS[1] + 1))
    lag_ms = LAG_STEP_MS * steps * int(rng.choice([-1, 1]))
    times = [contact.t + lag_ms / 1000 for contact in heard.contacts]
    contacts = [
        replace(contact, t_heard=t if 0 <= t < seconds - CUT_SECONDS else None)
        for contact, t in zip(heard.contacts, times, strict=True)
    ]
    return replace(heard, contacts=contacts, lag_ms=float(lag_ms))


def swapped(heard: Heard, donors: Iterable[tuple[int, list[Contact]]]) -> Heard:
    """With the sound of the first donor of which nothing is in step with a contact of the picture;
    unchanged when there is none."""
    for index, donor in donors:
        times = [contact.t for contact in heard.contacts]
        if _apart([contact.t for contact in donor], times, IN_STEP_SECONDS):
            mute = [replace(contact, t_heard=None) for contact in heard.contacts]
            return Heard(mute, lag_ms=None, sound_of=index, donor=donor)
    return heard


def distracted(heard: Heard, seconds: float, rng: np.random.Generator) -> Heard:
    """With a few distractors, fewer where there is no room."""
    extras, taken = list(heard.extras), _times(heard)
    names = list(distractors.SOUNDS)
    for _ in range(int(rng.integers(NUM_DISTRACTORS[0], NUM_DISTRACTORS[1] + 1))):
        name = names[int(rng.integers(len(names)))]
        places = rng.uniform(CLEAR_SECONDS, seconds - CLEAR_SECONDS, NUM_PLACES).tolist()
        free = [t for t in places if _apart([t], taken, CLEAR_SECONDS)]
        if free:
            wave = distractors.SOUNDS[name](rng)
            extras.append(Extra(Impulse(free[0], name), wave, float(rng.random())))
            taken.append(free[0])
    return replace(heard, extras=extras)


def accompanied(heard: Heard, seconds: float, rng: np.random.Generator) -> Heard:
    """With a chord, and plucked notes on a beat but where another sound is near."""
    extras, taken = list(heard.extras), _times(heard)
    root_hz, beat = rng.uniform(*CHORD_HZ), rng.uniform(*BEAT_SECONDS)
    for t in np.arange(beat, seconds - CLEAR_SECONDS, beat).tolist():
        wave = distractors.note(root_hz * float(rng.choice(NOTES)), rng)
        if _apart([t], taken, CLEAR_SECONDS):
            extras.append(Extra(Impulse(t, "note"), wave, 0.5))
    bed = distractors.chord(root_hz, round(seconds * SAMPLE_RATE) + 1, rng)
    return replace(heard, extras=extras, bed=bed)


def layered(samples: Float32[ndarray, "2 m"], heard: Heard) -> Float32[ndarray, "2 m"]:
    """The scene's own sound with the extras and the music."""
    if not heard.extras and heard.bed is None:
        return samples
    mix = samples.astype(np.float64)
    for extra in heard.extras:
        begin = round(extra.impulse.t * SAMPLE_RATE)
        piece = extra.wave[: mix.shape[1] - begin]
        mix[:, begin : begin + len(piece)] += sound.gains(extra.x)[:, None] * piece
    if heard.bed is not None:
        mix += sound.gains(0.5)[:, None] * heard.bed[: mix.shape[1]]
    return sound.limited(mix)


def _times(heard: Heard) -> list[float]:
    seen = [contact.t for contact in heard.contacts]
    sounding = [contact.t_heard for contact in heard.contacts if contact.t_heard is not None]
    return [*seen, *sounding, *(impulse.t for impulse in heard.impulses)]


def _apart(times: Sequence[float], others: Sequence[float], least: float) -> bool:
    return all(abs(t - other) >= least for t in times for other in others)
