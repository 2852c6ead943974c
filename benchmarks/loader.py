"""The loader beside other loaders, on the same latents in one run.

    python benchmarks/loader.py --work FOLDER [--gib 0.9] [--rounds 3] [--only 4.6MB] [--ours]

writes random latents of two sizes as shards (4.6 MB and 0.2 MB a sample, video and audio), makes an
environment for each other library (some GB each; they are kept and used again), converts the
shards for those that have a format of their own, and has each of them give batches of 8 as
tensors, shuffled, from warm cache: an epoch unmeasured, then epochs for three seconds, in turn,
ROUNDS times. The first batch is that of a new process, timed from before its library, but not
torch, is imported and the data opened. webdataset and Energon read our tars. memcpy is one or two
threads copying samples that lie in memory, more than the processor's cache holds where GIB is, into
one of four batches after the other: nothing is opened, read or checked. Ours checks every byte; the
others check none. Shares are of memcpy with one thread.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import venv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
PEERS = {
    "webdataset": "webdataset",
    "streaming": "mosaicml-streaming",
    "litdata": "litdata",
    "energon": "megatron-energon",
}
VIDEO = {"4.6MB": (48, 31, 30, 52), "0.2MB": (48, 9, 12, 20)}
AUDIO = (64, 107)
VARIANTS = [
    *(("avdata", threads) for threads in (1, 2, 4)),
    *((peer, workers) for peer in PEERS for workers in (0, 2)),
    *(("memcpy", threads) for threads in (1, 2)),
]
LONGEST_SECONDS = 120
ALONE = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="For data and environments.")
    parser.add_argument("--gib", type=float, default=0.9, help="Of each size.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=list(VIDEO), help="One of the two sizes.")
    parser.add_argument("--ours", action="store_true", help="Ours and memcpy alone.")
    given = parser.parse_args()
    pythons = {"avdata": sys.executable, "memcpy": sys.executable}
    peers = {} if given.ours else PEERS
    for name, package in peers.items():
        pythons[name] = _environment(given.work / name, package)
    for size in [given.only] if given.only else VIDEO:
        data = given.work / f"data-{size}-{given.gib}"
        _write(data / "shards", VIDEO[size], given.gib)
        for peer in peers:
            _run(pythons[peer], "prepare", peer, data)
        found: dict[tuple[str, int], list[dict[str, float]]] = {}
        for _ in range(given.rounds):
            for name, number in VARIANTS:
                if name not in pythons:
                    continue
                lines = found.setdefault((name, number), [])
                if all(line["first_s"] for line in lines):  # What has failed once is left out.
                    line = _run(pythons[name], "read", name, data, number)
                    lines.append(json.loads(line))
        _table(size, found)


def _environment(folder: Path, package: str) -> str:
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    command = [str(python), "-m", "pip", "install", "--quiet", "torch", "numpy", package]
    subprocess.run(command, check=True, env=ALONE, stderr=subprocess.DEVNULL)
    return str(python)


def _write(root: Path, video: tuple[int, ...], gib: float) -> None:
    """Shards of random latents; kept and used again."""
    if (root / "dataset.json").exists():
        return
    import numpy as np

    from avdata.encoders.spec import AudioSpec, ClipShape, Specs, TextSpec, VideoSpec
    from avdata.jobs.export import export_shards
    from avdata.pipeline.shards.plan import ShardPlan
    from avdata.pipeline.shards.sample import EncodedSample
    from avdata.pipeline.shards.writer import write_dataset, write_shard

    texts = TextSpec("t", "0", width=64, max_tokens=16), TextSpec("t", "0", width=64, max_tokens=16)
    specs = Specs(VideoSpec("v", "0"), AudioSpec("a", "0"), *texts)
    frames, height, width = 4 * video[1] - 3, 16 * video[2], 16 * video[3]
    shape = ClipShape(num_frames=frames, height=height, width=width)
    rng, bucket = np.random.default_rng(0), f"{frames}x{height}x{width}"
    count = int(gib * 2**30 / (2 * np.prod(video)))
    keys = [f"{k:032x}" for k in range(count)]
    plans = []
    for number in range(8):
        clips: list[Any] = [SimpleNamespace(clip_id=key) for key in keys[number::8]]
        name = f"{bucket}/train-{number:06d}"
        plans.append(ShardPlan(name, "train", bucket, shape, clips, str(number), "0"))

    def sample(key: str) -> EncodedSample:
        shapes = (video, AUDIO, (9, 64), (9, 64))
        picture, sound, seen, heard = (rng.standard_normal(one, np.float32) for one in shapes)
        meta = {"clip_id": key, "captions": {"video": "a", "audio": "b"}}
        return EncodedSample(key, key, [], picture, sound, seen, heard, meta)

    for plan in plans:
        write_shard(root, plan, (sample(clip.clip_id) for clip in plan.clips))
    write_dataset(root, specs, plans, {})
    export_shards(root, "energon")


def _run(python: str, *words: object) -> str:
    script = Path(__file__).parent / "loader_peers.py"
    command = [python, str(script), *map(str, words)]
    environment = ALONE | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    with subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            out, errors = process.communicate(timeout=LONGEST_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, errors = "", f"no end in {LONGEST_SECONDS} s"
    if process.returncode:
        sys.stderr.write(f"{words}: {errors[-2000:]}\n")
        return json.dumps(
            dict.fromkeys(("samples_per_s", "gb_per_s", "cpu_s_per_gb", "first_s"), 0)
        )
    return out.strip().splitlines()[-1] if out.strip() else ""


def _table(size: str, found: dict[tuple[str, int], list[dict[str, float]]]) -> None:
    def middle(place: tuple[str, int], name: str) -> float:
        return statistics.median(one[name] for one in found[place])

    bound = middle(("memcpy", 1), "gb_per_s")
    slow = [middle(place, "gb_per_s") for place in found if place[0] == "webdataset"]
    sys.stdout.write(
        f"\n{size} a sample, medians (lowest to highest)\n\n"
        "| loader | threads or workers | samples/s | GB/s | of memcpy | of webdataset "
        "| CPU s/GB | first batch, s |\n|---|---|---|---|---|---|---|---|\n"
    )
    for place, lines in found.items():
        if not all(line["first_s"] for line in lines):
            sys.stdout.write(f"| {place[0]} | {place[1]} | failed or no end | | | | | |\n")
            continue
        speeds = [line["gb_per_s"] for line in lines]
        cells = [
            place[0],
            str(place[1]),
            f"{middle(place, 'samples_per_s'):.0f}",
            f"{middle(place, 'gb_per_s'):.2f} ({min(speeds):.2f} to {max(speeds):.2f})",
            f"{100 * middle(place, 'gb_per_s') / bound:.0f} %",
            f"{middle(place, 'gb_per_s') / max(slow):.1f}" if slow else "",
            f"{middle(place, 'cpu_s_per_gb'):.2f}",
            "" if place[0] == "memcpy" else f"{middle(place, 'first_s'):.2f}",
        ]
        sys.stdout.write(f"| {' | '.join(cells)} |\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
