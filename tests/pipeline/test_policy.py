from pathlib import Path

import pytest

from avdata.errors import ConfigError
from avdata.pipeline.arrow import from_table, to_table
from avdata.pipeline.policy import Policy, decide, holds, load_policy
from avdata.pipeline.record import Clip
from tests.pipeline.clips import a_clip


def decided(policy: Policy, *clips: Clip) -> list[Clip]:
    return from_table(Clip, decide(to_table(Clip, clips), policy))


def test_every_rule_that_holds_gives_its_name_as_a_reason() -> None:
    policy = Policy("p", {"dark": "technical.luma_mean < 0.1", "still": "labels.motion == static"})
    dark, bright = decided(
        policy, a_clip(luma_mean=0.05, motion="static"), a_clip(luma_mean=0.5, motion="large")
    )
    assert (dark.status, dark.reasons) == ("drop", ["dark", "still"])
    assert (bright.status, bright.reasons) == ("keep", [])


def test_a_field_that_was_not_measured_drops_nothing() -> None:
    policy = Policy("p", {"quiet": "audio.rms_dbfs < 0"})
    (clip,) = decided(policy, a_clip(audio=None))
    assert clip.status == "keep"


def test_and_needs_both() -> None:
    table = to_table(Clip, [a_clip(motion="static", contact=True), a_clip(motion="static")])
    mask = holds("labels.motion == static and labels.contact == false", table)
    assert mask.to_pylist() == [False, True]


def test_contains_matches_whole_entries_only() -> None:
    table = to_table(Clip, [a_clip(flags=["truncated"]), a_clip(flags=["not_truncated", "x"])])
    assert holds("media.flags contains truncated", table).to_pylist() == [True, False]


def test_deciding_again_forgets_the_old_decision() -> None:
    strict, none = Policy("s", {"all": "start_s >= 0"}), Policy("n", {})
    (clip,) = decided(none, *decided(strict, a_clip()))
    assert (clip.status, clip.reasons) == ("keep", [])


def test_the_name_of_a_column_in_quotes_is_text() -> None:
    table = to_table(Clip, [a_clip(motion="status"), a_clip(motion="static")])
    assert holds("labels.motion == 'status'", table).to_pylist() == [True, False]


@pytest.mark.parametrize(
    ("rule", "hint"),
    [
        ("technical.luma_maen < 1", "technical.luma_mean"),
        ("technical.luma_mean smaller 1", "field operator value"),
        ("technical < 1", "unknown field"),
        ("technical.luma_mean < dark", "not comparable"),
        ("labels.motion contains s", "not comparable"),
        ("semantics.picture_group != clip_id", "clip_id is a column, too"),
    ],
)
def test_a_rule_that_cannot_be_read_names_file_rule_and_way_out(
    tmp_path: Path, rule: str, hint: str
) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(f"name: mine\nrules:\n  broken: {rule}\n")
    with pytest.raises(ConfigError, match="rule broken") as caught:
        load_policy(file)
    assert hint in str(caught.value)
    assert str(file) in str(caught.value)


def test_a_rule_has_no_name_of_another_count(tmp_path: Path) -> None:
    for name in ("keep", "clips"):
        (tmp_path / "p.yaml").write_text(f"rules: {{{name}: start_s > 0}}")
        with pytest.raises(ConfigError, match=f"rule {name}: the name is taken"):
            load_policy(tmp_path / "p.yaml")
