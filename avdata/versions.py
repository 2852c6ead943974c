"""Which versions made an output; written beside it."""

import importlib.metadata
import platform

PACKAGES = (
    "avdata",
    "av",
    "diffusers",
    "numpy",
    "opencv-python-headless",
    "pyarrow",
    "ray",
    "scenedetect-headless",
    "torch",
    "transformers",
    "webdataset",
)


def versions() -> dict[str, str]:
    """Of Python and of the packages that decide results, as far as they are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
