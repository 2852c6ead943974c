"""Whether other libraries read our shards as they are, by the files that `avdata export` writes.

    python benchmarks/shard_readers.py SHARDS [--environment FOLDER]

exports SHARDS in every format, makes an environment of its own with the readers in it (some GB; it
is kept and used again) and has each of them read everything there: every member must have the
bytes that are in the tar. DALI reads on the CPU.
"""

import argparse
import importlib.metadata
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
import venv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

PACKAGES = ("wids", "megatron-energon", "nvidia-dali-cuda120", "webshart", "hfutils")
ARRAYS = ("video.npy", "audio.npy", "video_text.npy", "audio_text.npy")
SPLITS = ("train", "val")

Found = Iterator[tuple[str, str, Any]]
"""Key, member, and its bytes or what they decode to."""


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("shards", type=Path, help="Folder that `avdata encode` made.")
    parser.add_argument(
        "--environment", type=Path, default=Path(tempfile.gettempdir()) / "shard-readers"
    )
    parser.add_argument("--read", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.read:
        sys.exit(_read(given.shards.resolve()))
    from avdata.jobs.export import export_shards
    from avdata.pipeline.shards.exports import FORMATS

    for name in FORMATS:
        began = time.perf_counter()
        count = len(export_shards(given.shards, name))
        sys.stdout.write(f"export {name}: {count} files, {time.perf_counter() - began:.3f} s\n")
    sys.stdout.flush()
    python = given.environment / "bin" / "python"
    if not python.exists():
        venv.create(given.environment, with_pip=True)
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    install = [python, "-m", "pip", "install", "--quiet", *PACKAGES]
    subprocess.run(install, check=True, env=alone)
    command = [python, __file__, str(given.shards), "--read"]
    sys.exit(subprocess.run(command, check=False, env=alone).returncode)


def _read(root: Path) -> int:
    """In the environment of the readers; answers the exit code."""
    wanted = _members(root)
    readers: dict[str, tuple[str, Callable[[Path], Found]]] = {
        "wids": ("wids", _wids),
        "Energon, in order": ("megatron-energon", _energon),
        "Energon, by its own prepare": ("megatron-energon", _energon_prepared),
        "Energon, by key": ("megatron-energon", _energon_by_key),
        "DALI": ("nvidia-dali-cuda120", _dali),
        "webshart": ("webshart", _webshart),
        "hfutils": ("hfutils", _hfutils),
    }
    sys.stdout.write(
        "| reader | version | members | as in the tar | time |\n|---|---|---|---|---|\n"
    )
    whole = True
    for name, (package, read) in readers.items():
        began, found = time.perf_counter(), dict[tuple[str, str], Any]()
        for key, member, value in read(root):
            found[key, member] = value
        seconds = time.perf_counter() - began
        equal = sum(_same(value, wanted.get(place)) for place, value in found.items())
        whole &= equal == len(wanted) == len(found)
        version = importlib.metadata.version(package)
        cells = f"{len(found)} of {len(wanted)} | {equal} | {seconds:.2f} s"
        sys.stdout.write(f"| {name} | {version} | {cells} |\n")
        sys.stdout.flush()
    return 0 if whole else 1


def _members(root: Path) -> dict[tuple[str, str], bytes]:
    """All there is, by the standard library."""
    found = {}
    for path in sorted(root.glob("*/*.tar")):
        with tarfile.open(path) as tar:
            for one in tar:
                file = tar.extractfile(one)
                key, _, member = one.name.partition(".")
                found[key, member] = file.read() if file else b""
    return found


def _same(value: object, wanted: bytes | None) -> bool:
    import numpy as np

    if wanted is None or isinstance(value, bytes):
        return value == wanted
    if isinstance(value, dict):
        return bool(value == json.loads(wanted))
    array = np.load(io.BytesIO(wanted))
    is_one = isinstance(value, np.ndarray) and value.dtype == array.dtype
    return is_one and bool(np.array_equal(value, array))


def _wids(root: Path) -> Found:
    os.environ["WIDS_CACHE"] = tempfile.mkdtemp()
    import wids

    for split in SPLITS:
        path = root / f"wids-{split}.json"
        if path.exists():
            data = wids.ShardListDataset(str(path), localname=lambda url: url, transformations=[])
            for number in reversed(range(len(data))):
                sample = data[number]
                for name, file in sample.items():
                    if name.startswith("."):
                        yield sample["__key__"], name[1:], file.read()


def _energon(root: Path) -> Found:
    from megatron import energon

    @energon.edataclass
    class Latents(energon.Sample):
        members: dict[str, Any]

    @energon.stateless
    def cook(raw: dict[str, Any]) -> Latents:
        members = {name: value for name, value in raw.items() if not name.startswith("__")}
        return Latents(**energon.basic_sample_keys(raw), members=members)

    class Task(energon.DefaultTaskEncoder):
        cookers = (energon.Cooker(cook),)

        def batch(self, samples: list[Latents]) -> list[Latents]:
            return samples

    for split in SPLITS:
        data = energon.get_val_dataset(
            root,
            split_part=split,
            worker_config=energon.WorkerConfig(rank=0, world_size=1, num_workers=0),
            batch_size=2,
            task_encoder=Task(),
        )
        for batch in energon.get_loader(data):
            for sample in batch:
                for name, value in sample.members.items():
                    yield sample.__key__, name, value


def _energon_prepared(root: Path) -> Found:
    """The tars alone, prepared by Energon's own command."""
    with tempfile.TemporaryDirectory() as folder:
        for tar in root.glob("*/*.tar"):
            bare = Path(folder) / tar.relative_to(root)
            bare.parent.mkdir(exist_ok=True)
            bare.symlink_to(tar)
        parts = [x for one in SPLITS for x in ("--split-parts", rf"{one}:.*/{one}-.*\.tar")]
        command = [Path(sys.executable).with_name("energon"), "prepare", "--non-interactive"]
        kind = ["--sample-type", "CrudeWebdataset", folder]
        subprocess.run([*command, *parts, *kind], check=True, stdout=subprocess.DEVNULL)
        yield from _energon(Path(folder))


def _energon_by_key(root: Path) -> Found:
    from megatron import energon
    from megatron.energon.dataset_config import get_dataset_from_config

    config = energon.WorkerConfig(rank=0, world_size=1, num_workers=0)
    store = get_dataset_from_config(root, training=False, worker_config=config).as_file_store()
    for key, member in _members(root):
        yield key, member, bytes(store[f"{key}.{member}"][0])


def _dali(root: Path) -> Found:
    import numpy as np
    from nvidia.dali import fn, pipeline_def

    tars = sorted(str(path) for path in root.glob("*/*.tar"))

    @pipeline_def(batch_size=1, num_threads=1, device_id=None)
    def members() -> tuple[object, ...]:
        indices = [tar.removesuffix(".tar") + ".idx" for tar in tars]
        return tuple(
            fn.readers.webdataset(
                paths=tars, index_paths=indices, ext=[*ARRAYS, "json"], name="reader"
            )
        )

    pipe = members()
    pipe.build()
    for _ in range(pipe.epoch_size("reader")):
        data = [np.asarray(one.as_array()[0]).tobytes() for one in pipe.run()]
        key = json.loads(data[-1])["clip_id"]
        for member, value in zip((*ARRAYS, "json"), data, strict=True):
            yield key, member, value


def _webshart(root: Path) -> Found:
    import webshart

    for bucket in sorted({path.parent for path in root.glob("*/*.tar")}):
        data = webshart.discover_dataset(str(bucket))
        for shard in range(data.num_shards):
            reader = data.open_shard(shard)
            for number, name in enumerate(data.list_files_in_shard(shard)):
                key, _, member = name.partition(".")
                yield key, member, bytes(reader.read_file(number))


def _hfutils(root: Path) -> Found:
    from hfutils.index import tar_file_download, tar_list_files

    with tempfile.TemporaryDirectory() as folder:
        for tar in sorted(map(str, root.glob("*/*.tar"))):
            for name in tar_list_files(tar):
                file = Path(folder) / name
                tar_file_download(tar, name, str(file))
                key, _, member = name.partition(".")
                yield key, member, file.read_bytes()
                file.unlink()


if __name__ == "__main__":
    main()
