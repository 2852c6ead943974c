from dataclasses import dataclass, field
from pathlib import Path

import pytest

from avdata import config as configuration
from avdata.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Inner:
    deadline_s: float = 60.0
    num_workers: int | None = None

    def __post_init__(self) -> None:
        if self.deadline_s <= 0:
            raise ValueError(f"deadline_s must be positive, not {self.deadline_s}")


@dataclass(frozen=True, slots=True)
class Outer:
    width: int = 320
    name: str = "base"
    sizes: list[int] = field(default_factory=lambda: [1, 2])
    limits: Inner = field(default_factory=Inner)

    def __post_init__(self) -> None:
        if self.width % 16:
            raise ValueError(f"width must be a multiple of 16, not {self.width}")


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    return file


def test_nothing_given_is_the_defaults(tmp_path: Path) -> None:
    assert configuration.load(Outer) == Outer()
    assert configuration.load(Outer, written(tmp_path, "")) == Outer()


def test_a_file_overrides_defaults_and_an_override_the_file(tmp_path: Path) -> None:
    file = written(tmp_path, "width: 640\nlimits:\n  deadline_s: 5\n  num_workers: 3\n")
    assert configuration.load(Outer, file) == Outer(width=640, limits=Inner(5.0, 3))
    overrides = ["limits.deadline_s=7", "name=other", "sizes=[4, 5]"]
    found = configuration.load(Outer, file, overrides)
    assert found == Outer(640, "other", [4, 5], Inner(7.0, 3))


def test_a_file_overrides_what_lies_under_it(tmp_path: Path) -> None:
    file = written(tmp_path, "limits:\n  deadline_s: 5\n")
    under = {"width": 640, "limits": {"deadline_s": 1, "num_workers": 3}}
    assert configuration.load(Outer, file, under=under) == Outer(width=640, limits=Inner(5.0, 3))


def test_the_last_override_wins() -> None:
    assert configuration.load(Outer, overrides=["width=16", "width=32"]).width == 32


def test_null_means_off() -> None:
    overrides = ["limits.num_workers=3", "limits.num_workers=null"]
    assert configuration.load(Outer, overrides=overrides).limits.num_workers is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("widht: 640", "unknown key widht; did you mean width?"),
        ("limits:\n  deadline: 5", "limits.deadline; did you mean limits.deadline_s?"),
        ("zzz: 1", "known: width, name, sizes, limits"),
        ("width: wide", "width = 'wide'"),
        ("limits:\n  deadline_s: soon", "limits.deadline_s = 'soon'"),
        ("limits: 5", "limits = 5"),
        ("sizes: [1, x]", "sizes.1 = 'x'"),
        ("width: 17", "width must be a multiple of 16, not 17"),
        ("- width", "must hold keys and values, not list"),
        ("width: [", "not YAML"),
    ],
)
def test_a_mistake_in_a_file_names_file_key_and_value(tmp_path: Path, text: str, said: str) -> None:
    file = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        configuration.load(Outer, file)
    assert said in str(caught.value)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("width", "key=value"),
        ("limits.dead_line_s=5", "did you mean limits.deadline_s?"),
        ("width=[", "not YAML"),
    ],
)
def test_a_mistake_in_an_override_names_it(override: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        configuration.load(Outer, overrides=[override])
    assert f"--set {override}" in str(caught.value)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("width=17", "width must be a multiple of 16, not 17"),
        ("limits.deadline_s=-1", "limits: deadline_s must be positive, not -1.0"),
        ("name={a: 1}", "name: Input should be a valid string"),
    ],
)
def test_a_mistake_is_told_without_the_settings_beside_it(override: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        configuration.load(Outer, overrides=[override])
    assert str(caught.value) == f"--set {override}: {said}"


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"mine\.yaml: no such configuration file"):
        configuration.load(Outer, tmp_path / "mine.yaml")


def test_what_was_saved_is_read_back() -> None:
    config = Outer(width=640, limits=Inner(5.0, 3))
    assert configuration.from_plain(Outer, configuration.to_plain(config), "saved") == config
