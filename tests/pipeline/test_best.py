import dataclasses

import pytest

from avdata.pipeline.arrow import to_table
from avdata.pipeline.best import with_best
from avdata.pipeline.manifest import SemanticsRow
from avdata.pipeline.record import Clip
from tests.pipeline.clips import MEANING, a_clip

Groups = tuple[str | None, str | None]


def of_height(name: str, height: int) -> Clip:
    """Of as many bytes a second as any other."""
    clip = a_clip(name)
    return dataclasses.replace(clip, media=dataclasses.replace(clip.media, height=height))


SMALL, LARGE, MIDDLE, ALONE = (
    of_height(f"{k}.mp4", height) for k, height in enumerate((180, 720, 360, 1080))
)
CLIPS = [SMALL, LARGE, MIDDLE, ALONE]


def best(*groups: Groups) -> list[tuple[bool | None, bool | None]]:
    """Of `CLIPS`, in picture and in sound."""
    rows = [
        SemanticsRow(
            clip.clip_id, dataclasses.replace(MEANING, picture_group=seen, sound_group=heard)
        )
        for clip, (seen, heard) in zip(CLIPS, groups, strict=True)
    ]
    found = with_best(to_table(Clip, CLIPS), rows)
    assert [row.clip_id for row in found] == [row.clip_id for row in rows]
    return [(row.semantics.picture_best, row.semantics.sound_best) for row in found]


def test_a_group_has_one_best_the_one_with_most_pixels() -> None:
    assert best(("p", None), ("p", "s"), ("p", "s"), (None, None)) == [
        (False, None),
        (True, True),
        (False, False),
        (None, None),
    ]


def test_a_group_of_pictures_is_none_of_sounds() -> None:
    found = best(("g", None), (None, "g"), ("g", None), (None, "g"))
    assert found == [(False, None), (None, False), (True, None), (None, True)]


@pytest.mark.parametrize("turned", [False, True])
def test_of_clips_that_are_no_better_than_each_other_one_is_best(turned: bool) -> None:
    """The same one whatever their order, as of near-duplicates."""
    clips = [a_clip("a.mp4"), a_clip("b.mp4")]
    clips = clips[::-1] if turned else clips
    meaning = dataclasses.replace(MEANING, picture_group="p")
    rows = with_best(to_table(Clip, clips), [SemanticsRow(c.clip_id, meaning) for c in clips])
    (chosen,) = (row.clip_id for row in rows if row.semantics.picture_best)
    assert chosen == min(clip.clip_id for clip in clips)
