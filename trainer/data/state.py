"""Where a loader is: a few integers and digests, the same on every rank."""

from collections.abc import Iterator, Mapping
from typing import Any

from avdata.errors import UsageError
from avdata.trainer.data.plan import Plan

VERSION = 2
"""Of the order that a plan gives, too."""
State = dict[str, Any]


def state_at(plan: Plan, identity: Mapping[str, Any], step: int) -> State:
    """After so many steps; `identity` is all that the order depends on, as JSON."""
    epoch = plan.epoch_of(step)
    return {
        "version": VERSION,
        "step": step,
        "epoch": epoch,
        "step_in_epoch": step - plan.steps_before(epoch),
        "identity": dict(identity),
    }


def step_of(state: object, identity: Mapping[str, Any]) -> int:
    """UsageError, with all that differs, when it is the state of another order, or none."""
    if not isinstance(state, dict):
        raise UsageError(f"no state of a loader, but {type(state).__name__}")
    if state.get("version") != VERSION:
        raise UsageError(
            f"the loader's state has version {state.get('version')}, this avdata has {VERSION}"
        )
    step, old = state.get("step"), state.get("identity")
    if type(step) is not int or step < 0 or not isinstance(old, dict):
        raise UsageError(f"no state of a loader: step is {step}, identity {type(old).__name__}")
    differing = list(_differences("", old, dict(identity)))
    if differing:
        raise UsageError(
            "the loader's state is of another order of training: "
            + "; ".join(f"{name} was {old}, is {new}" for name, old, new in differing)
        )
    return step


def _differences(name: str, old: object, new: object) -> Iterator[tuple[str, object, object]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            inner = f"{name}.{key}" if name else str(key)
            yield from _differences(inner, old.get(key), new.get(key))
    elif old != new:
        yield name, old, new
