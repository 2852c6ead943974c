"""Whether workers need GPUs."""

from avdata.encoders.device import kind, usable
from avdata.jobs.engine import Engine


def on_gpu(device: str, engine: Engine) -> bool | None:
    """None where the cluster is to say, which may have other devices than this machine. Each worker
    looks for its own.
    """
    if engine.address is None or engine.inline:
        return usable(device).type == "cuda"
    return {"cpu": False, "cuda": True, "auto": None}[kind(device)]
