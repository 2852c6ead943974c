from typing import Any

import pytest

from avdata.errors import UsageError
from avdata.jobs.engine import Engine, stream


class Square:
    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        if item["x"] == 13:
            raise UsageError("thirteen")
        return {"y": item["x"] ** 2}


def squares(engine: Engine, *numbers: int) -> set[int]:
    return {answer["y"] for answer in stream(engine, Square, [{"x": x} for x in numbers])}


@pytest.mark.parametrize("engine", [Engine(inline=True), Engine(workers=2)])
def test_every_item_is_answered_and_our_errors_keep_their_kind(engine: Engine) -> None:
    assert squares(engine, 1, 2, 3) == {1, 4, 9}
    with pytest.raises(UsageError, match=r"^thirteen$"):
        squares(engine, 13)
