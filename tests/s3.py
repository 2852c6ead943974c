"""A real S3 server for tests: AVDATA_S3_SERVER names a command with `start DIR PORT`, which prints
the AWS_* variables to use, and `stop DIR`.
"""

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from avdata import storage

SERVER = os.environ.get("AVDATA_S3_SERVER")
needs_server = [
    pytest.mark.skipif(SERVER is None, reason="AVDATA_S3_SERVER names no S3 server to start"),
    # s3fs leaves its event loop to the end of the process.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning"),
]


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The variables that lead to it."""
    assert SERVER is not None
    folder = tmp_path_factory.getbasetemp().parent / "s3-server"  # Its installation is kept.
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [SERVER, "start", str(folder), str(port)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    yield dict(word.split("=", 1) for word in said.split() if word.startswith("AWS_"))
    subprocess.run([SERVER, "stop", str(folder)], check=True)


@pytest.fixture
def s3_bucket(s3_server: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty one of this test's own."""
    for variable, value in s3_server.items():
        monkeypatch.setenv(variable, value)
    fsspec.filesystem("s3").clear_instance_cache()
    bucket = storage.place(f"s3://{tmp_path.name.replace('_', '-').strip('-').lower()[:40]}")
    assert storage.is_remote(bucket)
    bucket.fs.mkdir(bucket.path)
    return storage.place(str(bucket))
