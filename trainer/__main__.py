"""One training process; torchrun starts one a device.

    torchrun --nproc-per-node 8 --shutdown-timeout 600 -m avdata.trainer RUN

RUN is a folder that `avdata train SHARDS --out RUN --prepare` made. A run that was told to stop
ends with 1; where torchrun may restart it, with 0, or it would train on.
"""

import os
import sys
from pathlib import Path

from avdata.errors import AvdataError, RunError
from avdata.trainer.last_word import WORD, has_spoken, leave_word

if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    if has_spoken():  # An error of ours would be the same at every restart.
        sys.exit()
    from avdata.trainer.run import open_run
    from avdata.trainer.train import train

    try:
        run = open_run(Path(sys.argv[1]))
        reached = train(run)
    except AvdataError as error:
        leave_word(error)
        sys.stderr.write(f"avdata: {error}\n")
        sys.exit(error.exit_code)
    told = os.environ
    # With `launch` it is the command that says so.
    if reached < run.config.steps and told.get("RANK", "0") == "0" and WORD not in told:
        sys.stderr.write(
            f"avdata: {run.root}: stopped at step {reached}; the same command goes on\n"
        )
        if int(told.get("TORCHELASTIC_MAX_RESTARTS", "0")) == 0:
            sys.exit(RunError.exit_code)
