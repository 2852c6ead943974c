"""`avdata sample`: mp4 files with sound from a run's newest checkpoint."""

import json
from pathlib import Path

from avdata.encoders.device import usable
from avdata.errors import UsageError
from avdata.pipeline.shards.dataset import read_members
from avdata.progress import progress
from avdata.trainer.flow import SamplerConfig
from avdata.trainer.run import Run, open_run
from avdata.trainer.sample import Prompt, open_generator, write_sample


def sample(root: Path, prompts: list[Prompt], config: SamplerConfig, device: str) -> list[Path]:
    """Writes RUN/samples/*.mp4, one a prompt."""
    generator = open_generator(open_run(root), usable(device))
    with progress("sample", len(prompts)) as advance:
        paths = []
        for prompt in prompts:
            paths.append(write_sample(generator, prompt, config, root / "samples"))
            advance(paths[-1].name)
    return paths


def prompts_of(root: Path, count: int, seed: int) -> list[Prompt]:
    """Captions of the first held-out clips, or of training clips where none are held out."""
    run: Run = open_run(root)
    dataset = run.dataset()
    entries = (dataset.samples("val") or dataset.samples("train"))[:count]
    if not entries:
        raise UsageError(f"{run.shards}: no samples to take captions from")
    prompts = []
    for number, entry in enumerate(entries):
        captions = json.loads(read_members(dataset.root, entry, ["json"])["json"])["captions"]
        prompts.append(Prompt(captions["video"], captions["audio"], seed + number))
    return prompts
