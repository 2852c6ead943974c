"""avdata: from a bucket of raw video with sound to a trained joint audio-video model.

`avdata.open("data/shards")` gives random access to shards, see `avdata.pipeline.shards.browse`.
"""

from importlib import import_module as _import_module
from pathlib import Path as _Path

_ROOT = _Path(__file__).resolve().parent.parent
if (_ROOT / "pyproject.toml").is_file():
    # In a checkout the four packages lie beside this folder; in a wheel they lie inside it.
    __path__.append(str(_ROOT))


def __getattr__(name: str) -> object:
    """`open` when it is asked for: importing avdata imports nothing else."""
    if name == "open":
        return _import_module("avdata.pipeline.shards.browse").open_shards
    raise AttributeError(f"module 'avdata' has no attribute {name!r}")
