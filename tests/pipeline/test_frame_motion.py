import numpy as np

from avdata.pipeline.measure.frame_motion import (
    GRID_COLUMNS,
    GRID_ROWS,
    FrameMotion,
    MotionSpool,
    still,
)


def of_frame(number: int) -> FrameMotion:
    """A motion that tells which frame it is of."""
    rng = np.random.default_rng(number)
    grid = (GRID_ROWS, GRID_COLUMNS)
    return FrameMotion(
        velocity=rng.random((*grid, 2), np.float32),
        moving=rng.random(grid, np.float32),
        camera_speed=float(number),
        luma=rng.random(),
        explained=rng.random(grid) > 0.5,
        evident=rng.random(grid) > 0.5,
    )


def same(found: list[FrameMotion], wanted: list[FrameMotion]) -> bool:
    fields = FrameMotion.__dataclass_fields__
    return len(found) == len(wanted) and all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for one, other in zip(found, wanted, strict=True)
        for name in fields
    )


def test_any_span_of_the_store_is_that_of_a_list() -> None:
    kept, wanted = MotionSpool(), [of_frame(k) for k in range(20)]
    for one in wanted:
        kept.append(one)
    for cut in (0, 7, 13):
        kept.replace(cut, still())
        wanted[cut] = still()
    for low, high in [(0, 20), (3, 20), (7, 8), (6, 14), (12, 12)]:
        part, listed = kept.between(low, high), wanted[low:high]
        assert len(part) == len(listed)
        assert same(kept[low:high], listed)
        for span in (slice(None), slice(2, 5), slice(5, None), slice(-3, None), slice(4, 2)):
            assert same(part[span], listed[span])
