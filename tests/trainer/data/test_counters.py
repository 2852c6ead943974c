import random

from avdata.trainer.data.counters import RECENT, Counters


def test_percentiles_are_those_of_the_recent_samples() -> None:
    counters, took = Counters(), [float(ms) for ms in range(1, 1001)]
    for _ in range(RECENT):
        counters.read(1, 9.0)  # Long ago.
    random.Random(0).shuffle(took)
    for ms in took * 5:
        counters.read(10, ms / 1000)
    found = counters.snapshot()
    assert found["samples"] == RECENT + 5000
    assert found["bytes"] == RECENT + 50_000
    assert abs(found["read_p50_ms"] - 500) < 20
    assert abs(found["read_p99_ms"] - 990) < 5


def test_nothing_read_has_no_percentiles() -> None:
    assert "read_p99_ms" not in Counters().snapshot()
