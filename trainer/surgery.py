"""Pretrained towers into the model, and trained ones out of it.

Loading is strict: every tensor of the files has its place, and every place its tensor. A joint
layer keeps its pretrained tensors whole, with the new matrices beside them, so widening moves no
number, and exporting a tower leaves nothing to take apart. Of a model on the meta device only the
files' headers are read.
"""

import contextlib
import dataclasses
import shutil
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from avdata import storage
from avdata.encoders import weights
from avdata.errors import UsageError
from avdata.trainer.config import InitConfig, TrainConfig
from avdata.trainer.model.avfulldit import AVFullDiT
from avdata.trainer.pretrained import (
    CONDITIONER,
    JOINT,
    NAMES,
    TANGOFLUX,
    Source,
    audio_source,
    joint_source,
    video_source,
)
from avdata.trainer.run import Run

FLOATING = ("F32", "BF16", "F16")
WIDENED = ("attn.to_q.", "attn.to_k.", "attn.to_v.", "proj_out.")
"""Tensors of a single audio layer that AVFull-Attention extends."""
KINDS = ("loaded", "widened", "new")
PARTS = {
    "video.": "video tower",
    "audio.flux.": "audio tower",
    "audio.": "audio conditioning",
    "joints.": "joint layers",
    "audio_caption.": "audio caption of the twin",
}
"""Parts of the model by the start of their parameters' names; the first that fits."""


@dataclass(slots=True)
class Tally:
    """So many tensors with so many numbers."""

    tensors: int = 0
    parameters: int = 0

    def add(self, value: Tensor) -> None:
        """One more."""
        self.tensors += 1
        self.parameters += value.numel()


def load_towers(model: AVFullDiT, init: InitConfig) -> dict[str, Source]:
    """Pretrained towers into `model`, as `init` names them; UsageError names what does not fit.

    Answers what was read, by the fields of `init`. On the meta device nothing is copied.
    """
    read = {}
    if init.video is not None:
        source = video_source(model.video.wan, Path(init.video))
        _fill(model.video.wan.state_dict(), source)
        read["video"] = source
    if init.audio is not None:
        source = audio_source(model.audio.flux, Path(init.audio))
        _fill(model.audio.state_dict(), source)
        read["audio"] = source
    if init.joint is not None:
        source = joint_source(Path(init.joint))
        _fill(_joining(model), source)
        read["joint"] = source
    return read


def start_from(run: Run, model: AVFullDiT, *, report: bool) -> set[str]:
    """Loads what a run's `init` names, every process for itself; `report` writes RUN/init.json.

    Answers the parts of the model that were loaded; every part is loaded whole or new.
    """
    read, found = begin_from(model, run.config)
    if read and report:
        files = {name: weights.digest(source.files, None) for name, source in read.items()}
        storage.write_json(run.root / "init.json", {"digests": files, "model": plain(found)})
    return {part for part, row in found.items() if row["loaded"].tensors}


def begin_from(
    model: AVFullDiT, config: TrainConfig
) -> tuple[dict[str, Source], dict[str, dict[str, Tally]]]:
    """`load_towers` and `tally` for a run of these settings.

    UsageError also where `trained = new` would freeze what nobody has trained.
    """
    read = load_towers(model, config.init)
    found = tally(model, read)
    heard = found.get("audio conditioning")
    if config.trained == "new" and heard is not None and heard["new"].tensors:
        raise UsageError(
            f"{config.init.audio}: has no pooled caption and no duration token, which "
            f"trained = new would freeze untrained; give {TANGOFLUX}, or trained = all"
        )
    return read, found


def loaded_parts(run: Run) -> set[str]:
    """The same of a run that has begun, from RUN/init.json: what it began from may be gone."""
    if run.config.init == InitConfig():
        return set()
    found = storage.read_json(run.root / "init.json")["model"]
    return {part for part, row in found.items() if row["loaded"]["tensors"]}


def plain(found: Mapping[str, Mapping[str, Tally]]) -> dict[str, dict[str, dict[str, int]]]:
    """A tally for JSON."""
    return {
        part: {kind: dataclasses.asdict(one) for kind, one in row.items()}
        for part, row in found.items()
    }


def tally(model: AVFullDiT, read: Mapping[str, Source]) -> dict[str, dict[str, Tally]]:
    """By part of the model: what was loaded, what of it is widened, what is new."""
    places = {f"video.wan.{name}" for name in read["video"].places} if "video" in read else set()
    places |= {f"audio.{name}" for name in read["audio"].places} if "audio" in read else set()
    places |= set(read["joint"].places) if "joint" in read else set()
    widened = _widened(model)
    found: dict[str, dict[str, Tally]] = {}
    for name, value in model.state_dict().items():
        part = found.setdefault(part_of(name), {key: Tally() for key in KINDS})
        part["loaded" if name in places else "new"].add(value)
        if name in widened:
            part["widened"].add(value)
    return found


def part_of(name: str) -> str:
    """The part of the model that a parameter belongs to."""
    for prefix, part in PARTS.items():
        if name.startswith(prefix):
            return part
    raise AssertionError(name)


def _widened(model: AVFullDiT) -> set[str]:
    if model.mode == "t2v" or model.config.fusion != "full":
        return set()
    count = model.config.audio_single_layers
    joined = range(count - model.config.num_joint, count)
    starts = tuple(
        f"audio.flux.single_transformer_blocks.{k}.{one}" for k in joined for one in WIDENED
    )
    # The output's bias stays as wide as it is.
    return {
        name
        for name in model.state_dict()
        if name.startswith(starts) and not name.endswith("proj_out.bias")
    }


def export_towers(model: AVFullDiT, out: Path) -> list[Path]:
    """The towers as folders that diffusers loads, `video` and `audio`, and the rest beside them.

    A joint layer's pretrained tensors go into the towers, its new ones into joint.safetensors by
    the model's own names. UsageError where `out` holds something.
    """
    storage.require_ours(out, (), "exported model")
    with _committed(out) as temporary:
        model.video.wan.save_pretrained(temporary / "video")
        rest = _joining(model)
        if model.mode == "t2av":
            model.audio.flux.save_pretrained(temporary / "audio")
            state = model.audio.state_dict()
            mine = {theirs: state[ours].contiguous() for theirs, ours in NAMES.items()}
            save_file(mine, temporary / "audio" / CONDITIONER)
        if rest:
            save_file({name: value.contiguous() for name, value in rest.items()}, temporary / JOINT)
    return sorted(path for path in out.rglob("*") if path.is_file())


def _joining(model: AVFullDiT) -> dict[str, Tensor]:
    """What belongs to no tower, by the model's own names."""
    return {
        name: value
        for name, value in model.state_dict().items()
        if not name.startswith(("video.", "audio."))
    }


def _fill(state: Mapping[str, Tensor], source: Source) -> None:
    """All of a state but what the layout of `source` does not have."""
    wanted = {name: value for name, value in state.items() if name not in source.absent}
    problems = {
        "missing_keys": [name for name in wanted if name not in source.places],
        "unexpected_keys": [
            place[1] for name, place in source.places.items() if name not in wanted
        ],
        "mismatched_keys": list(_mismatched(wanted, source)),
    }
    weights.require_whole(source.where, problems)
    if any(value.is_meta for value in wanted.values()):
        return
    for file, names in source.by_file().items():
        with weights.loading(file), safe_open(file, "pt") as opened, torch.no_grad():
            for ours, theirs in names:
                value = opened.get_tensor(theirs)
                if not value.isfinite().all():
                    raise UsageError(f"{file}: {theirs} is not finite; fetch it again")
                wanted[ours].copy_(value)


def _mismatched(wanted: Mapping[str, Tensor], source: Source) -> Iterator[str]:
    """Names with what is wrong about their shape or type."""
    for file, names in source.by_file().items():
        with weights.loading(file), safe_open(file, "pt") as opened:
            for ours, theirs in names:
                if ours not in wanted:
                    continue
                header = opened.get_slice(theirs)
                shape, kind = tuple(header.get_shape()), header.get_dtype()
                if shape != tuple(wanted[ours].shape):
                    yield f"{theirs} is {shape}, expected {tuple(wanted[ours].shape)}"
                elif kind not in FLOATING:
                    yield f"{theirs} is {kind}, expected one of {', '.join(FLOATING)}"


@contextlib.contextmanager
def _committed(out: Path) -> Iterator[Path]:
    """A temporary folder that becomes `out` when the block ends well."""
    temporary = out.with_name(f"{out.name}.tmp-{uuid.uuid4().hex[:12]}")
    temporary.mkdir(parents=True)
    try:
        yield temporary
        if out.is_dir():
            out.rmdir()
        temporary.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
