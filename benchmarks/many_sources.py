"""Memory of the driver while it ingests many tiny sources: is it flat in their number?

    python benchmarks/many_sources.py --count 2000 --count 8000

Each source is a file of its own with other bytes that are no video, so that it is fetched, named,
digested, measured in a child and quarantined, but costs no decoding. A tenth are second names.
"""

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from avdata.errors import YieldCollapsed
from avdata.jobs.engine import Engine
from avdata.jobs.ingest import ingest
from avdata.pipeline.manifest import Manifest
from avdata.pipeline.measure.source import IngestConfig


@dataclass
class Peak:
    """Resident memory of this process, sampled."""

    mib: list[float] = field(default_factory=list)

    @contextmanager
    def sampled(self) -> Iterator[None]:
        stop = threading.Event()

        def sample() -> None:
            while not stop.wait(0.2):
                status = Path("/proc/self/status").read_text()
                self.mib.append(int(status.split("VmRSS:")[1].split()[0]) / 1024)

        thread = threading.Thread(target=sample)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def main() -> None:
    """One process a count, so that none inherits the memory of another."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, action="append", required=True)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    if len(given.count) > 1:
        for count in given.count:
            command = [sys.executable, __file__, "--count", str(count)]
            subprocess.run([*command, "--workers", str(given.workers)], check=True)
        return
    with tempfile.TemporaryDirectory() as folder:
        _one(Path(folder), given.count[0], Engine(workers=given.workers))


def _one(folder: Path, count: int, engine: Engine) -> None:
    raw, out = folder / "raw", folder / "m"
    for number in range(count):
        path = raw / f"{number % 100:02d}" / f"{number}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        if number % 10 == 9:
            path.hardlink_to(raw / f"{(number - 1) % 100:02d}" / f"{number - 1}.mp4")
        else:
            path.write_bytes(f"no video {number}\n".encode() * 20)
    for what in ("first", "again"):
        peak, began = Peak(), time.monotonic()
        with peak.sampled(), suppress(YieldCollapsed):
            ingest([raw], out, IngestConfig(), engine=engine)
        steps = peak.mib[:: max(1, len(peak.mib) // 6)]
        sys.stdout.write(
            f"{count} sources, {what}: {time.monotonic() - began:.1f} s, "
            f"{len(Manifest(out).quarantine())} rows, driver at most {max(peak.mib):.0f} MiB; "
            f"over time {', '.join(f'{one:.0f}' for one in steps)}\n"
        )
        sys.stdout.flush()


if __name__ == "__main__":
    main()
