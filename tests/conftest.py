"""Shapes written in annotations are checked at run time in tests, and only there."""

from jaxtyping import install_import_hook

install_import_hook(["avdata.encoders", "avdata.trainer.model"], "beartype.beartype")
