import dataclasses

import pytest

from avdata.encoders.spec import ClipShape
from avdata.pipeline.record import Clip, JointCaption
from avdata.pipeline.shards.facts import facts, subsets
from tests.pipeline.clips import CAPTIONS, EVENT, MEANING, a_clip

WHOLE, PART = ClipShape(num_frames=33), ClipShape(num_frames=17)


def striking(*times: float) -> Clip:
    """A clip of 33 frames with contacts at these times, in seconds."""
    events = [dataclasses.replace(EVENT, t=t) for t in times]
    return dataclasses.replace(a_clip(contact=True, motion="large"), events=events)


@pytest.mark.parametrize(
    ("times", "kept"), [([0.5], 1), ([0.5, 1.5], 1), ([1.5], 0), ([1.2, 1.9], 0)]
)
def test_a_clip_cut_short_has_a_contact_only_where_one_is_left(
    times: list[float], kept: int
) -> None:
    clip = striking(*times)
    part, whole = facts(clip, PART), facts(clip, WHOLE)
    assert len(part["events"]) == kept
    assert part["labels"]["contact"] == (kept > 0)
    assert part["subsets"] == subsets(clip, PART)
    assert ("contact" in part["subsets"]) == (kept > 0)
    assert len(whole["events"]) == len(times)
    assert whole["labels"]["contact"]
    assert whole["subsets"] == ["contact", "large_motion"]
    assert "large_motion" in part["subsets"]


@pytest.mark.parametrize(
    ("coupling", "names"), [("tight", ["av_tight"]), ("loose", ["av_loose"]), (None, [])]
)
def test_a_tagged_clip_is_in_the_papers_subset_of_its_class(
    coupling: str | None, names: list[str]
) -> None:
    meaning = dataclasses.replace(MEANING, coupling=coupling)
    assert subsets(dataclasses.replace(a_clip(), semantics=meaning), WHOLE) == names
    assert subsets(a_clip(), WHOLE) == []


def test_a_joint_caption_comes_along_where_there_is_one() -> None:
    joint = JointCaption("a ball hits with a thud", None, "test", "0")
    said = facts(a_clip(captions=dataclasses.replace(CAPTIONS, joint=joint)), WHOLE)["captions"]
    assert said == {**facts(a_clip(), WHOLE)["captions"], "joint": joint.text}
    refused = dataclasses.replace(joint, text=None, reason="refused")
    without = a_clip(captions=dataclasses.replace(CAPTIONS, joint=refused))
    assert facts(without, WHOLE) == facts(a_clip(), WHOLE)
