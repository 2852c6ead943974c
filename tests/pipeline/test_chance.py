import numpy as np
import pytest

from avdata.pipeline.measure.chance import believed, p_values

REACH = 0.1
TIMES = np.arange(24 * 60) / 24
STRUCK = np.arange(1.0, 59.0, 1.3)


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).exponential(1.0, len(TIMES))


@pytest.mark.parametrize("share", [0.1, 0.2, 0.3, 0.5])
def test_of_sounds_unlike_the_picture_such_a_share_has_so_small_a_chance(share: float) -> None:
    """A chance is what it says: no more of those that are due to chance alone lie under it."""
    found = np.concatenate([p_values(noise(seed), TIMES, STRUCK, REACH) for seed in range(20)])
    assert np.isfinite(found).all()
    assert (found <= share).mean() <= share + 0.02


def test_what_all_sounds_share_is_believed_and_what_chance_gives_is_not() -> None:
    given = [believed(p_values(noise(seed), TIMES, STRUCK, REACH)).mean() for seed in range(20)]
    assert np.mean(given) <= 0.05
    seen = noise(0)
    seen[np.searchsorted(TIMES, STRUCK)] += 20.0
    assert believed(p_values(seen, TIMES, STRUCK, REACH)).all()
    few = STRUCK[:3]
    assert believed(p_values(seen, TIMES, few, REACH)).all()


def test_where_nothing_is_quiet_nothing_is_told_and_all_believed() -> None:
    roll = np.arange(1.0, 59.0, 0.12)
    found = p_values(noise(0), TIMES, roll, REACH)
    assert np.isnan(found[20:-20]).all()
    assert believed(found)[20:-20].all()


def test_only_what_is_near_in_time_is_compared() -> None:
    """Fast motion long before or after makes no change less likely."""
    seen = noise(0)
    at = np.searchsorted(TIMES, 30.0)
    seen[at] = 50.0
    alone = p_values(seen, TIMES, np.array([30.0]), REACH)
    seen[np.abs(TIMES - 30.0) > 2.0] = 1000.0
    np.testing.assert_array_equal(p_values(seen, TIMES, np.array([30.0]), REACH), alone)
    assert alone[0] < 0.2
