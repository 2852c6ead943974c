"""Conditions of a policy's rules: `column operator value`, several joined by `and`.

A condition is read against the manifest's schema, and what cannot do what it says is refused: a
value that the column never has, a comparison with nothing, text where there are numbers.
"""

import difflib
import functools
import math
import re
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import yaml

from avdata.errors import ConfigError
from avdata.pipeline.arrow import arrow_schema, leaves
from avdata.pipeline.record import Clip

COMPARE = {
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
    "==": pc.equal,
    "!=": pc.not_equal,
}
CONTAINS = "contains"
VALUES = {
    "labels.motion": ("static", "small", "large"),
    "media.flags": (
        "timestamps_out_of_order",
        "timestamps_jump",
        "decode_errors",
        "truncated",
        "no_declared_duration",
        "audio_unreadable",
        "no_audio_stream",
        "mirrored",
    ),
    "media.hdr": ("pq", "hlg"),
    "semantics.coupling": ("tight", "loose"),
}
"""All that these columns of text ever hold."""
COLUMNS = leaves(arrow_schema(Clip))
DECIDED = ("status", "reasons")
"""What a policy decides, and so cannot ask for."""
WORD = re.compile(r"""'(?:[^']|'')*'(?=\s|$)|"(?:[^"\\]|\\.)*"(?=\s|$)|\S+""")
NOTHING = ("null", "~", "none", "nan", ".nan")
LARGEST = 2**63 - 1

Value = str | float | int | bool


@dataclass(frozen=True, slots=True)
class Condition:
    """One column compared with one value."""

    column: str
    operator: str
    value: Value

    def holds(self, clips: pa.Table) -> pa.ChunkedArray:
        """For each row whether it does, which nothing measured never does."""
        head, *rest = self.column.split(".")
        column = pc.struct_field(clips[head], rest) if rest else clips[head]
        if self.operator == CONTAINS:
            entry = f"(^|\n){re.escape(str(self.value))}(\n|$)"
            found = pc.match_substring_regex(pc.binary_join(column, "\n"), entry)
        else:
            found = COMPARE[self.operator](column, pa.scalar(self.value))
        return pc.fill_null(found, False)


@functools.cache
def conditions(text: str) -> tuple[Condition, ...]:
    """Those that `and` joins; ConfigError when one cannot be read or can never do what it says."""
    parts: list[list[re.Match[str]]] = [[]]
    for word in WORD.finditer(text):
        if word[0].lower() in ("or", "||", "&&"):
            way = "conditions are joined by `and`; for an `or` write two rules"
            raise ConfigError(f"{text!r}: {way} (text with such a word goes in quotes)")
        if word[0].lower() == "and":
            parts.append([])
        else:
            parts[-1].append(word)
    return tuple(_condition(text, words) for words in parts)


def holds(text: str, clips: pa.Table) -> pa.ChunkedArray:
    """For each row whether all conditions hold; ConfigError when one cannot be read."""
    return functools.reduce(pc.and_, (one.holds(clips) for one in conditions(text)))


def _condition(text: str, words: list[re.Match[str]]) -> Condition:
    if len(words) < 3 or words[1][0] not in (*COMPARE, CONTAINS):
        raise ConfigError(f"cannot read {text!r}; write it as: field operator value")
    column, operator = words[0][0], words[1][0]
    literal = text[words[2].start() : words[-1].end()]
    known = COLUMNS
    if column not in known:
        near = difflib.get_close_matches(column, known, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
        raise ConfigError(f"unknown field {column}; {hint}")
    if column in DECIDED:
        raise ConfigError(f"{text!r}: {column} is what the policy decides, no rule can ask for it")
    if literal in known:
        how = f"columns are compared with values; for the text write '{literal}' in quotes"
        raise ConfigError(f"{text!r}: {literal} is a column, too: {how}")
    if literal.lower() in NOTHING:
        how = "nothing is compared with it: what was not measured makes a condition false"
        raise ConfigError(f"{text!r}: {literal} is no value; {how}")
    try:
        return Condition(column, operator, _value(column, known[column], operator, literal))
    except ValueError as error:
        raise ConfigError(f"{text!r}: {error}") from None


def _value(column: str, kind: pa.DataType, operator: str, literal: str) -> Value:
    """ValueError that says what the column can be compared with."""
    of_text = pa.types.is_list(kind) and pa.types.is_string(kind.value_type)
    if of_text != (operator == CONTAINS):
        what = "a list of text, for `contains` alone" if of_text else f"{kind}, not a list of text"
        raise ValueError(f"{column} is {what}: not comparable so")
    if of_text or pa.types.is_string(kind):
        return _text(column, operator, literal)
    if pa.types.is_boolean(kind):
        if operator not in ("==", "!=") or literal.lower() not in ("true", "false"):
            raise ValueError(f"{column} is true or false: not comparable so; use == or !=")
        return literal.lower() == "true"
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return _number(column, kind, operator, literal)
    raise ValueError(f"{column} is {kind}: not comparable so")


def _number(column: str, kind: pa.DataType, operator: str, literal: str) -> float | int:
    try:
        value = float(literal)
        whole = int(literal) if literal.lstrip("+-").isdigit() else value
    except ValueError:
        raise ValueError(f"{column} is a number: not comparable with {literal}") from None
    if not math.isfinite(value) or abs(value) > LARGEST:
        raise ValueError(f"{literal} is beyond all that {column} can be")
    if pa.types.is_floating(kind):
        return value
    if value.is_integer():
        return int(whole)
    if operator in ("==", "!="):
        raise ValueError(f"{column} is a whole number and never {literal}")
    return value


def _text(column: str, operator: str, literal: str) -> str:
    try:
        read = yaml.safe_load(literal)
    except yaml.YAMLError:
        raise ValueError(f"cannot read the value {literal}; text goes in quotes") from None
    if isinstance(read, (list, dict)):
        raise ValueError(f"{column} is compared with one text at a time, in quotes where need be")
    value = read if isinstance(read, str) else literal
    if (values := VALUES.get(column)) is None:
        return value
    if operator not in ("==", "!=", CONTAINS):
        raise ValueError(f"{column} has no order; use == or !=")
    if value not in values:
        raise ValueError(f"{column} is never {value}, but one of {', '.join(values)}")
    return value
