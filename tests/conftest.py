"""Shapes written in annotations are checked at run time in tests, and only there."""

import os
import tempfile
from collections.abc import Iterator

import pytest
from jaxtyping import install_import_hook

from tests.checked import checked
from tests.s3 import s3_bucket, s3_server

__all__ = ["cache_folder", "checked", "s3_bucket", "s3_server"]
"""Fixtures of all tests, and the type checker, which the hook finds by its name."""

# Before torch is imported: threads that spin while they wait slow down a machine that others use.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# Tiny models gain nothing from a second thread and lose much to it on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")
install_import_hook(["avdata.encoders", "avdata.trainer.model"], "tests.checked.checked")


@pytest.fixture(scope="session", autouse=True)
def cache_folder() -> Iterator[None]:
    """What is kept between runs is not kept between tests' sessions."""
    with tempfile.TemporaryDirectory(prefix="avdata-cache-") as folder:
        os.environ["AVDATA_CACHE"] = folder
        yield


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Slow tests run when they are asked for, with -m slow."""
    if not config.option.markexpr:
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="slow: run with -m slow"))
