"""The chain from Python: videos to a manifest, captions, shards, and a few training steps.

    python examples/python_api.py VIDEOS OUT

The commands of `avdata` are these functions with a command line in front. Running it again goes on
where it stopped.
"""

import sys
from pathlib import Path

from avdata.jobs.caption import caption
from avdata.jobs.encode import EncodeConfig, encode
from avdata.jobs.engine import Engine
from avdata.jobs.ingest import ingest
from avdata.jobs.train import progress_of, train
from avdata.pipeline.measure.source import IngestConfig
from avdata.trainer.config import TrainConfig


def main(videos: Path, out: Path) -> None:
    """Everything in this process but measuring and training, which have their own."""
    engine = Engine(inline=True)
    manifest = ingest([videos], out / "manifest", IngestConfig(num_frames=33, fps=16), None, engine)
    for clip in manifest.clips("keep"):
        sys.stdout.write(f"{clip.start_s:7.3f} s {clip.labels.motion} {len(clip.events)} impacts\n")
    caption(manifest.root)
    small = EncodeConfig(height=96, width=160)
    dataset = encode(manifest.root, out / "shards", small, engine)
    run = train(out / "run", dataset.root, TrainConfig(steps=5, batch_size=4))
    sys.stdout.write(f"{progress_of(run)}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
