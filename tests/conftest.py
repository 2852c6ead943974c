"""Shapes written in annotations are checked at run time in tests, and only there."""

from jaxtyping import install_import_hook

import tests.checked  # noqa: F401 (the hook finds the checker by name)

install_import_hook(["avdata.encoders", "avdata.trainer.model"], "tests.checked.checked")
