import sys

import pytest

from avdata.errors import UsageError
from avdata.pipeline.shards.store import open_store


def test_what_reads_s3_is_named_by_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(UsageError, match=r"pip install 'avdata\[s3\]'"):
        open_store("s3://bucket/shards")


def test_another_scheme_is_refused() -> None:
    with pytest.raises(UsageError, match="only local paths and s3:// URIs"):
        open_store("gs://bucket/shards")
