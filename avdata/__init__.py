"""avdata: from a bucket of raw video with sound to a trained joint audio-video model."""

from pathlib import Path as _Path

_ROOT = _Path(__file__).resolve().parent.parent
if (_ROOT / "pyproject.toml").is_file():
    # In a checkout the four packages lie beside this folder; in a wheel they lie inside it.
    __path__.append(str(_ROOT))
