"""One training process; torchrun starts one a device.

    torchrun --nproc-per-node 8 --shutdown-timeout 600 -m avdata.trainer RUN

RUN is a folder that `avdata train SHARDS --out RUN --prepare` made. A run whose time was up ends
with 1, and where torchrun starts its processes again they end so at once. One that was told to stop
ends with 1, but where torchrun may start it again with 0, for torchrun was told so, too.
"""

import os
import sys
import time
from pathlib import Path

from avdata.errors import AvdataError, RunError
from avdata.trainer.last_word import WORD, has_spoken, leave_word

TIME_IS_UP = "time-is-up"
"""A file in RUN: no process that torchrun starts again is to train on."""

if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    if has_spoken():  # An error of ours would be the same at every restart.
        sys.exit()
    began, told, root = time.monotonic(), os.environ, Path(sys.argv[1])
    if told.get("TORCHELASTIC_RESTART_COUNT", "0") == "0":
        if told.get("RANK", "0") == "0":
            (root / TIME_IS_UP).unlink(missing_ok=True)  # Of a torchrun before this one.
    elif (root / TIME_IS_UP).exists():
        sys.exit(RunError.exit_code)
    from avdata.trainer.run import open_run
    from avdata.trainer.train import train

    try:
        run = open_run(root)
        reached = train(run)
    except AvdataError as error:
        leave_word(error)
        sys.stderr.write(f"avdata: {error}\n")
        sys.exit(error.exit_code)
    # With `launch` it is the command that says so.
    if reached < run.config.steps and WORD not in told:
        if told.get("RANK", "0") == "0":
            sys.stderr.write(
                f"avdata: {run.root}: stopped at step {reached}; the same command goes on\n"
            )
        minutes = run.config.stop_after_minutes
        # All processes were there before training began to count, so none finds it short of that.
        late = minutes is not None and time.monotonic() - began >= 60 * minutes
        if late:
            (root / TIME_IS_UP).touch()
        if late or int(told.get("TORCHELASTIC_MAX_RESTARTS", "0")) == 0:
            sys.exit(RunError.exit_code)
