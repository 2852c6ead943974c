import threading

import pytest

from avdata.pipeline.shards.ahead import ahead


class Gate:
    """Work that notes what was begun and, for some items, waits to be let through."""

    def __init__(self, closed: set[int] | None = None) -> None:
        self.begun: list[int] = []
        self._open = {item: threading.Event() for item in closed or ()}

    def __call__(self, item: int) -> int:
        self.begun.append(item)
        if item in self._open:
            assert self._open[item].wait(10)
        if item == 99:
            raise ValueError("it cannot be read")
        return 10 * item

    def let(self, item: int) -> None:
        self._open[item].set()


@pytest.mark.parametrize("count", [0, 1, 3, 50])
@pytest.mark.parametrize("threads", [1, 4])
def test_results_come_in_order_whatever_runs_ahead(count: int, threads: int) -> None:
    with ahead(Gate(), range(20), count, threads) as results:
        assert list(results) == [10 * item for item in range(20)]


def test_later_work_may_end_before_earlier_work() -> None:
    work = Gate(closed={0})

    def second(item: int) -> int:
        done = work(item)
        if item == 2:
            work.let(0)
        return done

    with ahead(second, range(3), 3, 2) as results:
        assert list(results) == [0, 10, 20]


@pytest.mark.parametrize("count", [0, 1, 4])
def test_no_more_is_begun_than_asked_for(count: int) -> None:
    work, taken = Gate(), 0
    with ahead(work, range(20), count, 4) as results:
        for _ in results:
            taken += 1
            assert len(work.begun) <= taken + count
    assert sorted(work.begun) == list(range(20))


def test_work_goes_on_while_a_result_is_used() -> None:
    finished = threading.Event()

    def work(item: int) -> int:
        if item == 1:
            finished.set()
        return item

    with ahead(work, range(2), 1, 1) as results:
        assert next(results) == 0
        assert finished.wait(10)


def test_what_work_raises_is_raised_in_its_turn_and_the_rest_is_dropped() -> None:
    work = Gate()
    with ahead(work, [1, 2, 99, *range(3, 50)], 2, 1) as results:
        assert [next(results), next(results)] == [10, 20]
        with pytest.raises(ValueError, match="cannot be read"):
            next(results)
    assert len(work.begun) <= 6
    assert not decoding()


def test_leaving_early_leaves_no_thread() -> None:
    with ahead(Gate(), range(50), 4, 2) as results:
        assert next(results) == 0
    assert not decoding()


def decoding() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name.startswith("ahead")]
