"""Shards without avdata: plain webdataset, its stock decoders, any training loop.

    python examples/read_shards.py SHARDS [train|val]

Needs `pip install webdataset numpy`. Latents come normalised and as float16; text is unpadded, so a
batch has to pad it.
"""

import sys
from pathlib import Path

import webdataset


def main(root: Path, split: str) -> None:
    """Prints what each sample of a split holds."""
    tars = sorted(str(tar) for tar in root.glob(f"*/{split}-*.tar"))
    if not tars:
        sys.exit(f"{root}: no shards of split {split}")
    for sample in webdataset.WebDataset(tars, shardshuffle=False).decode():
        video, audio = sample["video.npy"], sample["audio.npy"]  # (c t h w) and (c l)
        words = len(sample["video_text.npy"]), len(sample["audio_text.npy"])
        facts = sample["json"]
        sys.stdout.write(
            f"{sample['__key__']} video {video.shape} audio {audio.shape} tokens {words} "
            f"contacts {len(facts['events'])}: {facts['captions']['video']}\n"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "train")
