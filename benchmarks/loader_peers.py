"""What `benchmarks/loader.py` runs in each environment: one loader over one folder of shards.

    python benchmarks/loader_peers.py prepare|read LOADER DATA [WORKERS]

`read` opens the loader and times its first batch, reads the rest of that epoch unmeasured and then,
for at least so many seconds, measured ones, and prints what they gave as a JSON line.
"""

import io
import json
import os
import resource
import sys
import tarfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

BATCH = 8
LEAST_SECONDS = 3.0
ROLES = ("video", "audio")
Batches = Iterable[dict[str, Any]]
"""Each has `video` and `audio`, tensors of a batch."""


def main() -> None:
    """The command."""
    what, name, data = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    if what == "prepare":
        PREPARE.get(name, lambda _: None)(data)
        return
    import torch

    torch.zeros(1)  # All of them need it: the time to import it is not counted.
    began = time.perf_counter()
    epochs = READ[name](data, int(sys.argv[4]))
    rest = iter(next(epochs))
    next(rest)
    first = time.perf_counter() - began
    for _ in rest:
        pass
    began, cpu = time.perf_counter(), _cpu()
    seconds, samples, num_bytes = 0.0, 0, 0
    while seconds < LEAST_SECONDS:
        for batch in next(epochs):
            samples += len(batch["video"])
            num_bytes += sum(batch[role].numel() * batch[role].element_size() for role in ROLES)
        seconds = time.perf_counter() - began
    line = {
        "samples_per_s": samples / seconds,
        "gb_per_s": num_bytes / seconds / 1e9,
        "cpu_s_per_gb": (_cpu() - cpu) / (num_bytes / 1e9),
        "first_s": first,
    }
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()
    os._exit(0)  # Some have threads that do not end.


def _cpu() -> float:
    """Of this process and of its workers, ended or not."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    ended = sum(one.ru_utime + one.ru_stime for one in used)
    ticks = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            facts = path.read_text().rpartition(")")[2].split()
            if facts[1] == str(os.getpid()):
                ticks += int(facts[11]) + int(facts[12])
    return ended + ticks / os.sysconf("SC_CLK_TCK")


def _samples(shards: Path) -> Iterator[dict[str, Any]]:
    """Every sample's arrays, by the standard library and numpy."""
    import numpy as np

    for path in sorted(shards.glob("*/*.tar")):
        with tarfile.open(path) as tar:
            sample: dict[str, Any] = {}
            for one in tar:
                role = one.name.partition(".")[2].removesuffix(".npy")
                file = tar.extractfile(one)
                if role in ROLES and file is not None:
                    sample[role] = np.load(io.BytesIO(file.read()))
                if len(sample) == len(ROLES):
                    yield sample
                    sample = {}


def _avdata(data: Path, threads: int) -> Iterator[Batches]:
    from avdata.trainer.data.config import DataConfig, ReadConfig
    from avdata.trainer.data.stream import ShardStream

    config = DataConfig(read=ReadConfig(threads=threads, ahead=2))
    stream = ShardStream(data / "shards", BATCH, config=config, roles=ROLES)
    while True:
        yield stream


def _memcpy(data: Path, threads: int) -> Iterator[Batches]:
    """All samples lie in memory and are copied into as many batches as our loader has at once."""
    import numpy as np
    import torch

    held = list(_samples(data / "shards"))
    order = np.random.default_rng(0).permutation(len(held)).tolist()
    ring = [
        {role: np.zeros((BATCH, *held[0][role].shape), np.float16) for role in ROLES}
        for _ in range(4)
    ]

    def copied(number: int) -> dict[str, Any]:
        into = ring[number % len(ring)]
        for seat, place in enumerate(order[number * BATCH : (number + 1) * BATCH]):
            for role in ROLES:
                into[role][seat] = held[place][role]
        return {role: torch.from_numpy(one) for role, one in into.items()}

    run = map if threads == 1 else ThreadPoolExecutor(threads).map
    while True:
        yield run(copied, range(len(held) // BATCH))


def _webdataset(data: Path, workers: int) -> Iterator[Batches]:
    import torch
    import webdataset

    def tensors(sample: tuple[Any, ...]) -> dict[str, Any]:
        return {role: torch.from_numpy(one) for role, one in zip(ROLES, sample, strict=True)}

    tars = sorted(str(tar) for tar in (data / "shards").glob("*/train-*.tar"))
    names = [f"{role}.npy" for role in ROLES]
    split = webdataset.split_by_worker
    dataset = (
        webdataset.WebDataset(tars, shardshuffle=len(tars), workersplitter=split)
        .shuffle(4 * BATCH)
        .decode()
        .to_tuple(*names)
        .map(tensors)
        .batched(BATCH, collation_fn=torch.utils.data.default_collate)
    )
    while True:
        yield webdataset.WebLoader(dataset, batch_size=None, num_workers=workers)


def _streaming_prepare(data: Path) -> None:
    from streaming import MDSWriter

    out = data / "mds"
    if (out / "index.json").exists():
        return
    columns = dict.fromkeys(ROLES, "ndarray")
    with MDSWriter(out=str(out), columns=columns) as writer:
        for sample in _samples(data / "shards"):
            writer.write(sample)


def _streaming(data: Path, workers: int) -> Iterator[Batches]:
    import streaming
    from torch.utils.data import DataLoader

    streaming.base.util.clean_stale_shared_memory()
    dataset = streaming.StreamingDataset(local=str(data / "mds"), shuffle=True, batch_size=BATCH)
    while True:
        yield DataLoader(dataset, batch_size=BATCH, num_workers=workers)


def _litdata_prepare(data: Path) -> None:
    import litdata

    out = data / "litdata"
    if (out / "index.json").exists():
        return
    count = sum(1 for _ in _samples(data / "shards"))
    litdata.optimize(
        fn=_Nth(data),
        inputs=list(range(count)),
        output_dir=str(out),
        chunk_bytes="64MB",
        num_workers=1,
    )


class _Nth:
    """Samples one after the other: `optimize` asks for one at a time, in order."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.samples: Iterator[dict[str, Any]] | None = None

    def __call__(self, _: int) -> dict[str, Any]:
        import torch

        if self.samples is None:
            self.samples = _samples(self.data / "shards")
        return {role: torch.from_numpy(one) for role, one in next(self.samples).items()}


def _litdata(data: Path, workers: int) -> Iterator[Batches]:
    import litdata

    dataset = litdata.StreamingDataset(str(data / "litdata"), shuffle=True)
    while True:
        yield litdata.StreamingDataLoader(dataset, batch_size=BATCH, num_workers=workers)


def _energon(data: Path, workers: int) -> Iterator[Batches]:
    from loader_energon import batches

    count = sum(1 for _ in _samples(data / "shards"))
    endless = batches(data / "shards", BATCH, workers)
    while True:
        yield islice(endless, count // BATCH)


PREPARE = {"streaming": _streaming_prepare, "litdata": _litdata_prepare}
READ = {
    "avdata": _avdata,
    "memcpy": _memcpy,
    "webdataset": _webdataset,
    "streaming": _streaming,
    "litdata": _litdata,
    "energon": _energon,
}

if __name__ == "__main__":
    main()
