"""Where an encoder's weights lie, in the layout of diffusers and transformers.

A folder (of the one model, or of a whole pipeline with subfolders), or a repository of the hub at a
pinned revision. Only safetensors are read, no pickles. Nothing is downloaded unless `download` is
set: what is missing is an error that says what, how to get it, and how large it is.
"""

import importlib
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch

from avdata import storage
from avdata.errors import UsageError

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
SUFFIXES = ("json", "safetensors", "model", "txt", "jinja")
"""Of what is fetched from the hub: settings, weights, vocabularies, chat templates."""
Model = Any
"""Of a library that is not typed."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class Weights:
    """Which weights; part of the settings of every encoder that has any."""

    path: str
    """A local folder, or the id of a hub repository such as Wan-AI/Wan2.2-TI2V-5B-Diffusers."""
    revision: str | None = None
    """The commit of the hub repository. It must have one; a folder has none."""
    subfolder: str | None = None
    """Of the weights in `path`, "." for `path` itself; None takes the usual one if it is there."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the arithmetic; bfloat16 is for GPUs. It is part of the spec's digest."""
    download: bool = False
    """Whether a hub repository may be fetched into the cache of huggingface_hub."""

    # An unknown key is an error, also where the settings are one of several kinds.
    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}


@dataclass(frozen=True, slots=True)
class Release:
    """Published weights: what to tell whoever has none, and where in a pipeline they are.

    Of other repositories with models of the kind it is not said how large they are.
    """

    name: str
    size: str
    repository: str
    folders: tuple[str, ...]
    """Usual folders of weights and, for text, of the tokenizer; "." is the repository itself."""

    def patterns(self, subfolder: str | None) -> list[str]:
        """The files of the repository that are needed, as glob patterns."""
        folders = (subfolder or self.folders[0], *self.folders[1:])
        places = ["" if folder == "." else f"{folder}/" for folder in folders]
        return [f"{place}*.{suffix}" for place in places for suffix in SUFFIXES]

    def absent(self, what: str, weights: Weights) -> UsageError:
        """The error for weights that are not there: `what`, and the way to them."""
        hub, revision = weights.revision is not None, weights.revision or "COMMIT"
        repository = weights.path if hub else self.repository
        about = "" if weights.path == self.repository else "for example, "
        about += f"the {self.name} is {self.size}: "
        about = about if repository == self.repository else ""
        wanted = " ".join(f"--include '{one}'" for one in self.patterns(weights.subfolder))
        get = f"hf download {repository} --revision {revision} {wanted} --local-dir DIR"
        or_else = " without revision" if hub else ""
        or_else += ", or set download = true" if hub and not weights.download else ""
        return UsageError(f"{what}; {about}`{get}`, then give DIR as path{or_else}")


def root(weights: Weights, release: Release) -> Path:
    """The folder that `path` means; UsageError where there is none."""
    local = Path(weights.path).expanduser()
    if local.is_dir():
        if weights.revision is not None:
            raise UsageError(f"{local}: a folder has no revision {weights.revision}; leave it out")
        return local
    if not HUB_ID.fullmatch(weights.path):
        raise release.absent(f"{local}: no such folder of weights", weights)
    if weights.revision is None:
        what = f"{weights.path}: no such folder; for a hub repository give its revision, a commit"
        raise release.absent(what, weights)
    return _snapshot(weights, release)


def _snapshot(weights: Weights, release: Release) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    which = f"{weights.path} at revision {weights.revision}"
    try:
        return Path(
            snapshot_download(
                weights.path,
                revision=weights.revision,
                allow_patterns=release.patterns(weights.subfolder),
                local_files_only=not weights.download,
            )
        )
    except LocalEntryNotFoundError as error:
        state = "cannot be reached" if weights.download else "not on this machine"
        raise release.absent(f"{which}: {state}", weights) from error
    except (OSError, HFValidationError) as error:
        said = str(error).strip().splitlines()[0]
        raise release.absent(f"{which}: cannot be fetched ({said})", weights) from error


def model_folder(weights: Weights, release: Release) -> Path:
    """The folder with the model's config.json; UsageError where there is none."""
    below = root(weights, release)
    usual = (release.folders[0], ".")
    places = [below / one for one in ([weights.subfolder] if weights.subfolder else usual)]
    for place in places:
        if (place / "config.json").is_file():
            return place
    tried = " or ".join(str(place) for place in dict.fromkeys(places))
    raise release.absent(f"{weights.path}: no config.json in {tried}", weights)


def read_config(folder: Path, key: str, expected: str) -> dict[str, Any]:
    """The model's config.json; UsageError when `key` says that it is of another class."""
    file = folder / "config.json"
    config = storage.read_json(file)
    if config.get(key) != expected:
        raise UsageError(
            f"{file}: {key} is {config.get(key)!r}, expected {expected!r}; "
            "give the path or subfolder of such a model"
        )
    return config


def weight_files(folder: Path, stem: str, missing: Callable[[str], UsageError]) -> list[Path]:
    """The safetensors of a model, one file or those that its index lists; all of them are there."""
    whole, index = folder / f"{stem}.safetensors", folder / f"{stem}.safetensors.index.json"
    files = [whole]
    if index.is_file():
        listed = storage.read_json(index).get("weight_map")
        if not isinstance(listed, dict):
            raise UsageError(f"{index}: has no weight_map; fetch it again")
        shards = sorted(set(listed.values()))
        files = [*files[: whole.is_file()], index, *(folder / shard for shard in shards)]
    for file in files:
        if not file.is_file():
            raise missing(f"{file}: missing")
    return files


def digest(files: list[Path], settings: object) -> str:
    """Of the files' names and bytes and of the settings that decide what they give, as JSON."""
    return storage.digest_json(
        [[file.name, storage.digest_file(file)] for file in files] + [settings]
    )


def library(name: str, extra: str = "encoders") -> Model:
    """diffusers or its like, imported when needed; UsageError where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        what = f"{name} cannot be imported ({error})"
        raise UsageError(f"{what}; pip install 'avdata[{extra}]'") from error


@contextmanager
def loading(folder: Path, extra: str = "encoders") -> Iterator[None]:
    """Turns what the libraries raise on files that do not fit, or where a package that they need is
    not installed, into a UsageError.
    """
    from safetensors import SafetensorError

    try:
        yield
    except ImportError as error:
        said = " ".join(str(error).split())[:300]
        raise UsageError(f"{folder}: {said}; pip install 'avdata[{extra}]'") from error
    except (OSError, RuntimeError, SafetensorError, TypeError, ValueError) as error:
        said = " ".join(str(error).split())[:300]
        raise UsageError(f"{folder}: cannot be loaded: {said}; fetch it again") from error


@contextmanager
def quiet(transformers: Model) -> Iterator[None]:
    """Without the library's progress bar, which would break into ours."""
    logging = transformers.utils.logging
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def require_whole(folder: Path, info: Mapping[str, Any]) -> None:
    """UsageError unless every weight of the model came from its files, and no weight was left over.

    The libraries only warn, and make up the weights that they lack.
    """
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if info[problem]:
            kind, names = problem.removesuffix("_keys"), sorted(map(str, info[problem]))
            raise UsageError(
                f"{folder}: {len(names)} {kind} weights ({names[0]} ...): not of this model; "
                "fetch it again"
            )
