"""Everything a fresh machine needs, in one command, with Python 3.11 or newer and nothing else.

    python3 -m avdata.bootstrap demo out/demo     the whole chain, ending with a report
    python3 -m avdata.bootstrap test              the test suite
    python3 -m avdata.bootstrap check             ruff and mypy
    python3 -m avdata.bootstrap COMMAND ...       any other avdata command

The first run makes `.venv` beside pyproject.toml and installs the project into it; later runs reuse
it until pyproject.toml changes. Only the standard library is used here.
"""

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = Path(os.environ.get("AVDATA_VENV", ROOT / ".venv"))


def main(arguments: list[str]) -> int:
    """Set up if need be, then run; answers the exit code."""
    if sys.hexversion < 0x030B0000:  # Whatever Python is there runs this file.
        sys.stderr.write(f"avdata needs Python 3.11 or newer, this is {sys.version.split()[0]}\n")
        return 2
    if not arguments or arguments[0] in ("-h", "--help"):
        sys.stdout.write((__doc__ or "") + "\n")
        return 0
    python = _ready()
    if arguments[0] == "test":
        command = [python, "-m", "pytest", *arguments[1:]]
    elif arguments[0] == "check":
        command = ["make", f"PYTHON={python}", "check"]
    else:
        command = [python, "-m", "avdata.jobs.cli", *arguments]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def _ready() -> str:
    """The environment's Python, with the project installed as pyproject.toml has it now."""
    python = str(VENV / "bin" / "python")
    digest = hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest()
    stamp = VENV / "avdata-installed"
    if stamp.exists() and stamp.read_text() == digest:
        return python
    sys.stderr.write(f"setting up {VENV}: some minutes, once\n")
    if not Path(python).exists():
        venv.create(VENV, with_pip=True)
    install = ["pip", "install", "--quiet", "--no-compile", "--editable", f"{ROOT}[dev]"]
    subprocess.run([python, "-m", *install], check=True)
    # Left to pip, this takes one core a minute. Some packages ship files that no Python compiles.
    subprocess.run([python, "-m", "compileall", "-qq", "-j", "0", str(VENV / "lib")], check=False)
    stamp.write_text(digest)
    return python


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except subprocess.CalledProcessError as error:
        sys.stderr.write(f"setting up failed: {' '.join(error.cmd)}\n")
        sys.exit(1)
