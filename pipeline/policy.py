"""Keep or drop, decided late from stored numbers: a YAML of named rules over manifest columns.

The default is `policy.yaml` beside this file; its header explains the language.
"""

from dataclasses import dataclass
from pathlib import Path

from avdata import config as configuration
from avdata.errors import ConfigError
from avdata.pipeline.conditions import conditions

DEFAULT = Path(__file__).with_name("policy.yaml")
TAKEN = ("clips", "keep")
"""Names of other counts in the funnel."""


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
        if rule in TAKEN:
            raise ConfigError(f"{file}: rule {rule}: the name is taken; give it another")
        try:
            conditions(text)
        except ConfigError as error:
            raise ConfigError(f"{file}: rule {rule}: {error}") from None
    return policy
