"""The paper's two lists of VGGSound's classes (arXiv 2512.02457, supplement H, table 6): AV-Tight,
whose sounds are those of visible actions, and AV-Loose, whose sounds go with the scene.

The paper sorts labelled videos; here the nearest class of the sound stands for the label.
"""

from functools import cache

from avdata.pipeline.semantics import CLASSES, load_classes

FILES = {"tight": "av_tight.txt", "loose": "av_loose.txt"}


@cache
def lists() -> dict[str, frozenset[str]]:
    """The classes of each."""
    return {name: frozenset(load_classes(CLASSES / file).names) for name, file in FILES.items()}


def coupling(sound_tags: list[str] | None, classes: tuple[str, ...]) -> str | None:
    """tight or loose by the first tag; None without tags, where the class is in neither list, and
    where `classes`, which the tags are of, lacks any of either.
    """
    if not sound_tags or not set().union(*lists().values()) <= set(classes):
        return None
    return next((name for name, names in lists().items() if sound_tags[0] in names), None)
