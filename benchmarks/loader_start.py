"""How long the loader takes to start on a large corpus, and how much memory it then has.

    python benchmarks/loader_start.py --samples 10000000 --work FOLDER

generates the index of a corpus (shards of 256 samples in 4 buckets, no tars) as the table that the
loader keeps of it, and opens it in new processes: dataset.json, the table, the plan, and
where the samples of the first batch and of a batch of epoch 1000 lie; then of 1000 more batches,
for the memory that stays. The same with a filter and weights. It also makes the real indices of a
small corpus and says how fast a table is made of them.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from avdata import storage
from avdata.encoders.spec import AudioSpec, ClipShape, Specs, TextSpec, VideoSpec
from avdata.pipeline.shards import column, table
from avdata.pipeline.shards.index import IndexedSample, Member
from avdata.trainer.data.config import MixConfig, ReadConfig
from avdata.trainer.data.located import locate
from avdata.trainer.data.source import open_source, order_of

SHARD, BUCKETS = 256, ("a", "b", "c", "d")
SHAPES = [[48, 9, 12, 20], [64, 43], [100, 4096], [30, 1024], []]
MIXES = {
    "all": MixConfig(),
    "a filter and weights": MixConfig(
        only_subsets=("contact",), subset_weights={"large_motion": 2}
    ),
}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--samples", type=int, default=10_000_000)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--open", help=argparse.SUPPRESS)
    given = parser.parse_args()
    os.environ["AVDATA_CACHE"] = str(given.work / "cache")
    root = given.work / f"shards-{given.samples}"
    if given.open:
        _open(root, MIXES[given.open])
        return
    if not (root / "dataset.json").exists():
        _generate(root, given.samples)
    for name in MIXES:
        for _ in range(3):
            command = [sys.executable, __file__, "--open", name, "--work", given.work]
            command += ["--samples", str(given.samples)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            sys.stdout.write(f"{given.samples} samples, {name}: {done.stdout}")
    _build()


def _open(root: Path, mix: MixConfig) -> None:
    before, (held, _) = resource.getrusage(resource.RUSAGE_SELF), _resident()
    began = time.perf_counter()
    source = open_source(root, ReadConfig())
    order = order_of(source, mix, 256, seed=0)
    places = list(locate(source.table, order.plan.batch(0).rows, ("video", "audio")))
    first = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    step = order.plan.steps_before(1000) + 7
    began = time.perf_counter()
    places += locate(source.table, order.plan.batch(step).rows, ("video", "audio"))
    later = time.perf_counter() - began
    own, mapped = _resident()
    for more in range(1000):
        places = list(locate(source.table, order.plan.batch(more).rows, ("video", "audio")))
    at_last, all_mapped = _resident()
    sys.stdout.write(
        f"first batch located in {first:.2f} s ({cpu:.2f} s of CPU), one of epoch 1000 in "
        f"{1000 * later:.1f} ms; {own - held:.0f} MB of its own memory, {mapped:.0f} MB of files, "
        f"RSS {own + mapped:.0f} MB; 1000 batches later {at_last - held:.0f} MB, "
        f"{all_mapped:.0f} MB and {at_last + all_mapped:.0f} MB\n"
    )


def _resident() -> tuple[float, float]:
    """MB of its own, and MB of files: pages that all processes share and the kernel takes back."""
    lines = Path("/proc/self/status").read_text().splitlines()
    found = dict(line.split(":") for line in lines if line.startswith("Rss"))
    own, mapped = (1024e-6 * int(found[name].split()[0]) for name in ("RssAnon", "RssFile"))
    return own, mapped


def _generate(root: Path, count: int) -> None:
    texts = TextSpec("t", "0", width=4096, max_tokens=512), TextSpec("t", "0", 1024, 64)
    specs = asdict(Specs(VideoSpec("v", "0"), AudioSpec("a", "0"), *texts))
    clip = asdict(ClipShape())
    shards: list[dict[str, Any]] = []
    left = count
    while left > 0:
        number = len(shards)
        bucket = BUCKETS[number * len(BUCKETS) * SHARD // count]
        name = f"{bucket}/train-{number:06d}"
        size = min(SHARD, left)
        facts = {"size_bytes": 0, "plan_digest": f"{number:032x}", "index_digest": f"{number:032x}"}
        shards.append(
            {"name": name, "split": "train", "bucket": bucket, "num_samples": size, **facts}
        )
        left -= size
    plain = {"format": 1, "specs": specs, "clip": clip, "shards": shards, "provenance": {}}
    storage.write_json(root / "dataset.json", plain)
    folder = table.table_folder(storage.digest_json([specs, clip, shards]))
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows = column.write_column(folder / "rows.npy", table.ROW, count)
    rows["key"] = np.char.zfill(np.arange(count).astype("S8"), 32)
    rows["places"]["offset"] = np.arange(count)[:, None] * 2**20
    rows["places"]["digest"] = rng.integers(0, 2**63, (count, 1))
    rows["places"]["shape"] = np.arange(len(table.MEMBERS))
    rows.flush()
    np.save(folder / "sources.npy", (np.arange(count) // 8).astype(np.int32))
    np.save(folder / "source_names.npy", np.arange(count // 8 + 1).astype("S32"))
    np.save(folder / "subsets.npy", rng.integers(0, 4, count).astype(np.uint64))
    sizes = [shard["num_samples"] for shard in shards]
    first = np.cumsum([0, *sizes]).tolist()
    table.seal_table(folder, shapes=SHAPES, subset_names=["contact", "large_motion"], first=first)


def _build() -> None:
    members = {
        name: Member(k << 20, 1 << 20, f"{k:016x}", shape)
        for k, (name, shape) in enumerate(zip(table.MEMBERS, SHAPES, strict=True))
    }
    plain = asdict(IndexedSample("0" * 32, "0" * 32, ["contact"], members))
    text = json.dumps([plain] * SHARD)
    began, cpu, rounds = time.perf_counter(), time.process_time(), 20
    with tempfile.TemporaryDirectory() as folder:
        builder = table.TableBuilder(Path(folder), rounds * SHARD)
        for _ in range(rounds):
            read = [IndexedSample(**one) for one in json.loads(text)]
            builder.add([_typed(one) for one in read])
        builder.finish()
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    sys.stdout.write(
        f"a table is made of indices at {rounds * SHARD / seconds:.0f} samples/s "
        f"({1e6 * cpu / rounds / SHARD:.0f} us of CPU a sample)\n"
    )


def _typed(sample: IndexedSample) -> IndexedSample:
    found = {name: Member(**one) for name, one in sample.members.items()}  # type: ignore[arg-type]
    return IndexedSample(sample.key, sample.source, sample.subsets, found)


if __name__ == "__main__":
    main()
