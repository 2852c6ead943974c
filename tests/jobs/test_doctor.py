import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from avdata.jobs import doctor

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]


def found() -> dict[str, tuple[str, str]]:
    return {one.what: (one.state, one.detail) for one in doctor.diagnose()}


def test_every_extra_is_looked_for() -> None:
    # The extra clap is for a test alone, in an environment of its own.
    assert set(doctor.EXTRAS) == set(PROJECT["optional-dependencies"]) - {"dev", "clap"}
    assert set(doctor.OPTIONAL) < set(doctor.EXTRAS)


def test_what_is_installed_is_told_by_its_import_name() -> None:
    assert {"google", "sentencepiece", "transformers"} <= packages_distributions().keys()
    state, detail = found()["extra encoders"]
    wanted = "PIL, google.protobuf, sentencepiece, torchvision, transformers"
    assert (state, detail) == ("ok", wanted)


@pytest.mark.parametrize(("extra", "state"), [("encoders", "note"), ("media", "missing")])
def test_what_is_not_there_is_told_with_the_way_to_it(
    extra: str, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also a module in a package that is not there."""
    monkeypatch.setitem(doctor.EXTRAS, extra, ("no_such_package.module", "no_such_module"))
    detail = f"no no_such_package.module, no_such_module; pip install 'avdata[{extra}]'"
    assert found()[f"extra {extra}"] == (state, detail)
