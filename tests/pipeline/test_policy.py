import re
from pathlib import Path

import pytest
import yaml

from avdata.errors import ConfigError
from avdata.pipeline.arrow import from_table, to_table
from avdata.pipeline.conditions import COMPARE, VALUES, conditions, holds
from avdata.pipeline.decide import decide
from avdata.pipeline.policy import Policy, load_policy
from avdata.pipeline.record import Clip
from tests.pipeline.clips import a_clip

ROOT = Path(__file__).parents[2]


def decided(policy: Policy, *clips: Clip) -> list[Clip]:
    return from_table(Clip, decide(to_table(Clip, clips), policy))


def test_every_rule_that_holds_gives_its_name_as_a_reason() -> None:
    policy = Policy({"dark": "technical.luma_mean < 0.1", "still": "labels.motion == static"})
    dark, bright = decided(
        policy, a_clip(luma_mean=0.05, motion="static"), a_clip(luma_mean=0.5, motion="large")
    )
    assert (dark.status, dark.reasons) == ("drop", ["dark", "still"])
    assert (bright.status, bright.reasons) == ("keep", [])


def test_a_field_that_was_not_measured_drops_nothing() -> None:
    policy = Policy({"quiet": "audio.rms_dbfs < 0"})
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
    strict, none = Policy({"all": "start_s >= 0"}), Policy({})
    (clip,) = decided(none, *decided(strict, a_clip()))
    assert (clip.status, clip.reasons) == ("keep", [])


def test_the_name_of_a_column_in_quotes_is_text() -> None:
    table = to_table(Clip, [a_clip("status"), a_clip("static")])
    assert holds("source.uri == 'status'", table).to_pylist() == [True, False]


@pytest.mark.parametrize("quote", ["'", '"'])
def test_words_of_the_language_in_quotes_are_text(quote: str) -> None:
    table = to_table(Clip, [a_clip("rock and roll or not.mp4"), a_clip("rock.mp4")])
    text = f"start_s == 0 and source.uri == {quote}rock and roll or not.mp4{quote}"
    assert holds(text, table).to_pylist() == [True, False]
    assert holds("source.uri == rock.mp4\nand start_s == 0", table).to_pylist() == [False, True]


@pytest.mark.parametrize("number", ["1e-3", "1.0e-3", "0.001", ".001", "+0.001"])
def test_numbers_are_written_in_any_way(number: str) -> None:
    table = to_table(Clip, [a_clip(luma_mean=0.0005), a_clip(luma_mean=0.002)])
    assert holds(f"technical.luma_mean < {number}", table).to_pylist() == [True, False]
    assert holds("media.width == 3.2e2", table).to_pylist() == [True, True]
    assert holds("shot < 0.5 and labels.contact == FALSE", table).to_pylist() == [True, True]


@pytest.mark.parametrize(
    ("rule", "hint"),
    [
        ("technical.luma_maen < 1", "technical.luma_mean"),
        ("technical.luma_mean smaller 1", "field operator value"),
        ("technical < 1", "unknown field"),
        ("technical.luma_mean < dark", "not comparable"),
        ("labels.motion contains s", "not comparable"),
        ("semantics.picture_group != clip_id", "clip_id is a column, too"),
        ("labels.motion == static or labels.contact == false", "write two rules"),
        ("labels.motion == static OR shot == 1", "write two rules"),
        ("labels.motion == statc", "one of static, small, large"),
        ("labels.motion < large", "no order"),
        ("labels.motion == [static, small]", "one text at a time"),
        ("media.flags contains truncatd", "never truncatd, but one of"),
        ("media.flags contains sepia", "one of timestamps_out_of_order"),
        ("media.flags == truncated", "for `contains` alone"),
        ("semantics.coupling == close", "one of tight, loose"),
        ("audio.onsets_s contains 1", "not comparable"),
        ("audio.lufs == null", "null is no value"),
        ("caption_failure == ~", "~ is no value"),
        ("technical.luma_mean != .nan", ".nan is no value"),
        ("technical.luma_mean < 1e999", "beyond all"),
        ("source.size_bytes > 99999999999999999999", "beyond all"),
        ("technical.luma_mean < 10%", "is a number"),
        ("technical.luma_mean < '0.5'", "is a number"),
        ("media.duration_s < 1:30", "is a number"),
        ("shot == 0.5", "a whole number and never 0.5"),
        ("labels.contact > 0", "true or false"),
        ("labels.silent == 'true'", "true or false"),
        ("status == keep", "status is what the policy decides"),
        ("reasons contains broken", "reasons is what the policy decides"),
        ("shot == 1 and", "field operator value"),
        ("source.uri == 'rock", "in quotes"),
    ],
)
def test_a_rule_that_cannot_be_read_names_file_rule_and_way_out(
    tmp_path: Path, rule: str, hint: str
) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(yaml.safe_dump({"name": "mine", "rules": {"broken": rule}}))
    with pytest.raises(ConfigError, match="rule broken") as caught:
        load_policy(file)
    assert hint in str(caught.value)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", "rules is missing"),
        ("name: mine\n", "rules is missing"),
        ("rules:\n  a: shot == 1\n  b: shot == 2\n  a: shot == 3\n", "key 'a' is there twice"),
        ("rules:\n  '': shot == 1\n", "without a name"),
    ],
)
def test_a_policy_that_loses_what_is_written_is_refused(
    tmp_path: Path, text: str, hint: str
) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=hint) as caught:
        load_policy(file)
    assert str(file) in str(caught.value)


def test_values_that_a_rule_may_name_are_those_that_are_documented() -> None:
    media = (ROOT / "docs" / "media.md").read_text()
    flags = media[media.index("## Flags") :].partition("\n## ")[0]
    assert tuple(re.findall(r"^\| `(\w+)` \|", flags, re.MULTILINE)) == VALUES["media.flags"]


def test_the_strict_example_has_every_rule_of_the_default_or_a_stricter_one() -> None:
    strict = load_policy(ROOT / "examples" / "strict_policy.yaml").rules
    for name, text in load_policy().rules.items():
        for mine, theirs in zip(conditions(strict[name]), conditions(text), strict=True):
            assert (mine.column, mine.operator) == (theirs.column, theirs.operator)
            if mine.value != theirs.value:
                assert theirs.operator in "<>"
                assert COMPARE[theirs.operator](theirs.value, mine.value).as_py()


def test_a_rule_has_no_name_of_another_count(tmp_path: Path) -> None:
    for name in ("keep", "clips"):
        (tmp_path / "p.yaml").write_text(f"rules: {{{name}: start_s > 0}}")
        with pytest.raises(ConfigError, match=f"rule {name}: the name is taken"):
            load_policy(tmp_path / "p.yaml")
