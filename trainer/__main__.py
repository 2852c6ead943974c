"""One training process; torchrun starts one a device.

    torchrun --nproc-per-node 8 -m avdata.trainer RUN

RUN is a folder that `avdata train SHARDS --out RUN --prepare` made.
"""

import sys
from pathlib import Path

from avdata.errors import AvdataError
from avdata.trainer.last_word import has_spoken, leave_word

if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    if has_spoken():  # An error of ours would be the same at every restart.
        sys.exit()
    from avdata.trainer.run import open_run
    from avdata.trainer.train import train

    try:
        train(open_run(Path(sys.argv[1])))
    except AvdataError as error:
        leave_word(error)
        sys.stderr.write(f"avdata: {error}\n")
        sys.exit(error.exit_code)
