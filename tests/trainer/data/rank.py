"""One of several processes that read the same epochs in step.

python -m tests.trainer.data.rank SHARDS RANK WORLD STORE
"""

import json
import sys
from itertools import chain
from pathlib import Path

import torch.distributed as dist

from avdata.trainer.data.stream import ShardStream

EPOCHS = 3


def main(shards: str, rank: int, world: int, store: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    stream = ShardStream(Path(shards), 4, seed=5, rank=rank, world=world)
    shapes: list[list[int]] = []
    counted: list[list[str]] = []
    for batch in chain.from_iterable(stream for _ in range(EPOCHS)):
        weighed = zip(batch["keys"], batch["weight"].tolist(), strict=True)
        mine = (list(batch["video"].shape), [key for key, weight in weighed if weight])
        all_of_them: list[tuple[list[int], list[str]]] = [mine] * world
        dist.all_gather_object(all_of_them, mine)
        assert all(shape == mine[0] for shape, _ in all_of_them)
        if not shapes:
            sys.stdout.write("reads\n")
            sys.stdout.flush()
        shapes.append(mine[0])
        counted.append([key for _, keys in all_of_them for key in keys])
    dist.destroy_process_group()
    sys.stdout.write(json.dumps([shapes, counted]) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
