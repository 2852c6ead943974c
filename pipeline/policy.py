"""Keep or drop, decided late from stored numbers: a YAML of named rules over manifest columns.

Rules are evaluated column by column with Arrow, so a million rows take seconds and no media is
ever opened. The default is `policy.yaml` beside this file; its header explains the language.
"""

import difflib
import re
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import yaml

from avdata import config as configuration
from avdata.errors import ConfigError
from avdata.pipeline.arrow import arrow_schema
from avdata.pipeline.record import Clip

DEFAULT = Path(__file__).with_name("policy.yaml")
CONDITION = re.compile(r"^\s*(\S+)\s+(<=|>=|==|!=|<|>|contains)\s+(.+?)\s*$")
TAKEN = ("clips", "keep")
"""Names of other counts in the funnel."""
COMPARE = {
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
    "==": pc.equal,
    "!=": pc.not_equal,
}


@dataclass(frozen=True, slots=True)
class Policy:
    """Named rules; see `policy.yaml`."""

    name: str = "unnamed"
    rules: dict[str, str] = field(default_factory=dict)


def load_policy(file: Path | None = None) -> Policy:
    """The policy of a YAML file, every condition checked; None is the default policy."""
    file = file or DEFAULT
    policy = configuration.load(Policy, file)
    empty = arrow_schema(Clip).empty_table()
    for rule, text in policy.rules.items():
        if rule in TAKEN:
            raise ConfigError(f"{file}: rule {rule}: the name is taken; give it another")
        try:
            holds(text, empty)
        except ConfigError as error:
            raise ConfigError(f"{file}: rule {rule}: {error}") from None
    return policy


def decide(clips: pa.Table, policy: Policy) -> pa.Table:
    """The same rows with `status` and `reasons` as the policy has them."""
    names = list(policy.rules)
    masks = [holds(text, clips).to_pylist() for text in policy.rules.values()]
    reasons = [
        [name for name, hit in zip(names, row, strict=True) if hit]
        for row in (zip(*masks, strict=True) if masks else ([] for _ in range(len(clips))))
    ]
    schema = clips.schema
    decided = {
        "status": pa.array(["drop" if row else "keep" for row in reasons], pa.string()),
        "reasons": pa.array(reasons, schema.field("reasons").type),
    }
    for column, values in decided.items():
        at = schema.get_field_index(column)
        clips = clips.set_column(at, schema.field(at), values)
    return clips


def holds(text: str, clips: pa.Table) -> pa.ChunkedArray:
    """For each row whether the condition holds; ConfigError when it cannot be read."""
    result = None
    for part in re.split(r"\s+and\s+", text):
        one = pc.fill_null(_one(part, clips), False)
        result = one if result is None else pc.and_(result, one)
    return result


def _one(text: str, clips: pa.Table) -> pa.ChunkedArray:
    read = CONDITION.match(text)
    if read is None:
        raise ConfigError(f"cannot read {text!r}; write it as: field operator value")
    name, operator, literal = read.groups()
    column = _column(name, clips)
    if literal in _leaves(clips.schema):
        how = f"columns are compared with values; for the text write '{literal}' in quotes"
        raise ConfigError(f"{text!r}: {literal} is a column, too: {how}")
    try:
        value = yaml.safe_load(literal)
    except yaml.YAMLError as error:
        raise ConfigError(f"cannot read the value {literal!r} of {text!r}") from error
    try:
        if operator == "contains":
            return _contains(column, str(value))
        return COMPARE[operator](column, pa.scalar(value))
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid, pa.ArrowTypeError):
        raise ConfigError(f"{text!r}: {name} is {column.type}, not comparable so") from None


def _column(name: str, clips: pa.Table) -> pa.ChunkedArray:
    known = _leaves(clips.schema)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
        raise ConfigError(f"unknown field {name}; {hint}")
    head, *rest = name.split(".")
    column = clips.column(head)
    return pc.struct_field(column, rest) if rest else column


def _leaves(schema: pa.Schema) -> list[str]:
    def walk(prefix: str, one: pa.Field) -> list[str]:
        if pa.types.is_struct(one.type):
            return [leaf for inner in one.type for leaf in walk(f"{prefix}{one.name}.", inner)]
        return [prefix + one.name]

    return [leaf for one in schema for leaf in walk("", one)]


def _contains(column: pa.ChunkedArray, value: str) -> pa.ChunkedArray:
    if not pa.types.is_list(column.type):
        raise pa.ArrowTypeError("not a list")
    joined = pc.binary_join(column, "\n")
    return pc.match_substring_regex(joined, f"(^|\n){re.escape(value)}(\n|$)")
