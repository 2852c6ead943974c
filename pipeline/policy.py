"""Keep or drop, decided late from stored numbers: a YAML of named rules over manifest columns.

Rules are evaluated column by column with Arrow, so a million rows take seconds and no media is
ever opened. The default is `policy.yaml` beside this file; its header explains the language.
"""

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from avdata import config as configuration
from avdata.errors import ConfigError
from avdata.pipeline.conditions import conditions, holds

DEFAULT = Path(__file__).with_name("policy.yaml")


@dataclass(frozen=True, slots=True)
class Policy:
    """Named rules; see `policy.yaml`."""

    rules: dict[str, str]
    name: str = "unnamed"


def load_policy(file: Path | None = None) -> Policy:
    """The policy of a YAML file, every condition checked; None is the default policy."""
    file = file or DEFAULT
    policy = configuration.load(Policy, file)
    for rule, text in policy.rules.items():
        if not rule.strip():
            raise ConfigError(f"{file}: a rule without a name, which is the reason that it gives")
        try:
            conditions(text)
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
