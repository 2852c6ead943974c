"""Configuration: frozen dataclasses, filled from YAML and dotted overrides.

The dataclass is the schema: its fields are the only keys, its defaults the only defaults.
pydantic checks the values; an unknown key is an error that names the nearest known one.
"""

import dataclasses
import difflib
import json
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pydantic
import yaml

from avdata.errors import ConfigError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T")


def load(
    schema: type[T],
    file: Path | None = None,
    overrides: Sequence[str] = (),
    under: Mapping[str, Any] | None = None,
) -> T:
    """Defaults, then `under`, then the YAML file, then each `dotted.key=value` (read as YAML).

    Every field of the schema has a default; a nested one keeps those that its parent gives it.
    """
    plain: dict[str, Any] = _merge(_defaults(schema), dict(under or {}))
    if file is not None:
        read = _read_yaml(file)
        _refuse_unknown(schema, read, str(file))
        plain = _merge(plain, read)
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise ConfigError(f"--set {override}: write it as key=value")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {override}: the value is not YAML") from error
        for part in reversed(key.split(".")):
            value = {part: value}
        _refuse_unknown(schema, value, f"--set {override}")
        plain = _merge(plain, value)
    where = [*([str(file)] if file else ()), *(f"--set {one}" for one in overrides)]
    return from_plain(schema, plain, ", ".join(where) or "configuration")


def from_plain(schema: type[T], plain: Mapping[str, Any], where: str) -> T:
    """The dataclass from nested plain values; ConfigError names `where`, the key and the value."""
    _refuse_unknown(schema, plain, where)
    try:
        return pydantic.TypeAdapter(schema).validate_python(plain)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        path = ".".join(str(part) for part in first["loc"])
        key = path or schema.__name__
        if first["type"] == "missing":
            raise ConfigError(f"{where}: {key} is missing") from error
        message = first["msg"].removeprefix("Value error, ")
        if isinstance(first["input"], Mapping):  # Of several values; the message names which.
            raise ConfigError(": ".join([where, *filter(None, (path, message))])) from error
        raise ConfigError(f"{where}: {key} = {first['input']!r}: {message}") from error


def to_plain(config: "DataclassInstance") -> dict[str, Any]:
    """Nested plain values that `from_plain` reads back and JSON can hold."""
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config), default=str))
    return plain


def _defaults(schema: type[object]) -> dict[str, Any]:
    try:
        whole: Any = schema()
    except TypeError:  # Some fields must be given.
        return {}
    return to_plain(whole)


class _EachKeyOnce(yaml.SafeLoader):
    """YAML in which a key that is there twice is an error: of two values one would be lost."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep) for key, _ in node.value]
        for place, (key, _) in enumerate(node.value):
            if keys[place] in keys[:place]:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {keys[place]!r} is there twice", key.start_mark
                )
        return super().construct_mapping(node, deep)


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        plain = yaml.load(file.read_text(), _EachKeyOnce)
    except FileNotFoundError:
        raise ConfigError(f"{file}: no such configuration file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: not a configuration file: {error}") from error
    except yaml.YAMLError as error:
        line = str(error).replace("\n", " ")
        raise ConfigError(f"{file}: not YAML: {line}") from error
    if plain is None:
        return {}
    if not isinstance(plain, dict):
        raise ConfigError(f"{file}: must hold keys and values, not {type(plain).__name__}")
    return plain


def _merge(low: dict[str, Any], high: dict[str, Any]) -> dict[str, Any]:
    merged = dict(low)
    for key, value in high.items():
        below = merged.get(key)
        nested = isinstance(below, dict) and isinstance(value, dict)
        merged[key] = _merge(merged[key], value) if nested else value
    return merged


def _refuse_unknown(
    schema: type[object], plain: Mapping[str, Any], where: str, prefix: str = ""
) -> None:
    known = typing.get_type_hints(schema)
    for key, value in plain.items():
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
            hint = f"did you mean {prefix}{near[0]}?" if near else f"known: {', '.join(known)}"
            raise ConfigError(f"{where}: unknown key {prefix}{key}; {hint}")
        inner = known[key]
        if (
            isinstance(inner, type)
            and dataclasses.is_dataclass(inner)
            and isinstance(value, Mapping)
        ):
            _refuse_unknown(inner, value, where, f"{prefix}{key}.")
