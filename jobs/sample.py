"""`avdata sample`: mp4 files with sound from a run's newest checkpoint."""

from dataclasses import dataclass, field, fields
from pathlib import Path

from avdata.encoders.choice import EncodersConfig
from avdata.encoders.device import usable
from avdata.errors import UsageError
from avdata.progress import progress
from avdata.trainer.flow import SamplerConfig
from avdata.trainer.run import Run, open_run
from avdata.trainer.sample import Prompt, open_generator, prompts_from, require_guided, write_sample


@dataclass(frozen=True, slots=True)
class SampleConfig(SamplerConfig):
    """The sampler's settings, and the encoders."""

    encoders: EncodersConfig = field(default_factory=EncodersConfig)
    """The command begins with those of the run; weights may lie elsewhere by now."""

    @property
    def sampler(self) -> SamplerConfig:
        """Without the encoders."""
        return SamplerConfig(**{one.name: getattr(self, one.name) for one in fields(SamplerConfig)})


def sample(
    root: Path,
    prompts: list[Prompt],
    config: SamplerConfig,
    device: str,
    encoders: EncodersConfig | None = None,
) -> list[Path]:
    """Writes RUN/samples/*.mp4, one a prompt; `encoders` are those of the run unless given."""
    run = open_run(root)
    require_guided(run, prompts, config)
    generator = open_generator(run, usable(device), encoders)
    with progress("sample", len(prompts)) as advance:
        paths = []
        for prompt in prompts:
            paths.append(write_sample(generator, prompt, config, root / "samples"))
            advance(paths[-1].name)
    return paths


def prompts_of(root: Path, count: int, seed: int) -> list[Prompt]:
    """Captions of held-out clips spread over all of them, or of training clips where none are held
    out.
    """
    run: Run = open_run(root)
    dataset = run.dataset()
    entries = dataset.samples("val") or dataset.samples("train")
    if not entries:
        raise UsageError(f"{run.shards}: no samples to take captions from")
    count = min(count, len(entries))
    spread = [entries[number * len(entries) // count] for number in range(count)]
    return prompts_from(dataset, spread, seed)
