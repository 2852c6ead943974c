"""Validation: the loss of held-out samples at fixed times and with fixed noise.

The noise is keyed by clip and time alone, so two runs, two steps, or the joint model and its twin
are compared on the very same problems.
"""

from collections.abc import Sequence

import torch
import torch.distributed as dist

from avdata.pipeline.shards.dataset import SampleEntry
from avdata.trainer.batch import Seat, stack
from avdata.trainer.flow import flow_loss
from avdata.trainer.group import Group
from avdata.trainer.loader import Reader
from avdata.trainer.model.avfulldit import AVFullDiT

TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)


@torch.no_grad()
def validate(
    model: AVFullDiT, reader: Reader, entries: Sequence[SampleEntry], group: Group
) -> dict[str, float]:
    """Mean losses over samples and `TIMES`; nothing when there are no samples.

    The ranks share the samples; all call it and get the same answer.
    """
    if not entries:
        return {}
    model.eval()
    sums = torch.zeros(2, dtype=torch.float64, device=group.device)
    share = 1 / (len(entries) * len(TIMES))
    for entry in entries[group.rank :: group.world]:
        clip = int(entry.key[:16], 16)
        for number, time in enumerate(TIMES):
            video, audio = reader.read(entry, (clip, number))
            batch = stack([Seat(share, time, video, audio)]).to(group.device)
            losses = flow_loss(model, batch.video, batch.audio, batch.u, batch.share)
            sums[0] += losses.video
            sums[1] += 0.0 if losses.audio is None else losses.audio
    model.train()
    dist.all_reduce(sums)
    found = {"val_loss_video": float(sums[0])}
    return found | ({"val_loss_audio": float(sums[1])} if "audio" in reader.roles else {})
