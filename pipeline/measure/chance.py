"""How likely a sound at another time is to find as large a change in the picture.

Where much moves fast, something changes near every sound, and that it does tells nothing. So the
change near a strike is compared with those at the times around it at which nothing is struck. The
strikes of a shot are judged together: one in ten finds a change of one in ten by chance.
"""

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from scipy.stats import false_discovery_control

AROUND_SECONDS = 1.0
MIN_QUIET = 8
"""Times without a strike; fewer tell nothing, and in a roll there are none."""
FALSE_SHARE = 0.6
"""Of the strikes of a shot that stand out alone, the most that may do so by chance."""


def p_values(
    size: Float[ndarray, " n"],
    happened: Float[ndarray, " n"],
    struck_s: Float[ndarray, " k"],
    reach: float,
) -> Float[ndarray, " k"]:
    """For each strike (in order), the share of quiet times around it, itself included, with a
    change within `reach` seconds that is as large as the largest so near to it; nan where too
    little is quiet to tell. `size` are the changes at the times `happened`. Times nearer to each
    other than that share changes, and so count together as one.
    """
    largest = _largest(size, happened, happened, reach)
    after = np.searchsorted(struck_s, happened)
    bounded = np.r_[-np.inf, struck_s, np.inf]
    quiet = np.minimum(happened - bounded[after], bounded[after + 1] - happened) > reach
    mine = _largest(size, happened, struck_s, reach)
    found = np.full(len(struck_s), np.nan)
    for k, (at, change) in enumerate(zip(struck_s, mine, strict=True)):
        around = within(happened, at, AROUND_SECONDS)
        # What is near the strike is near these times, too, unless they are twice as far.
        far = np.abs(happened[around] - at) > 2 * reach
        others = largest[around][quiet[around] & far]
        if len(others) >= MIN_QUIET:
            near = within(happened, at, reach)
            shared = max(1, near.stop - near.start)
            found[k] = (shared + (others >= change).sum()) / (shared + len(others))
    return found


def believed(p_values: Float[ndarray, " k"]) -> Bool[ndarray, " k"]:
    """Which strikes' changes are no chance, by the rate of false discoveries (Benjamini and
    Hochberg, 1995); those of which nothing can be told are.
    """
    told = ~np.isnan(p_values)
    kept: Bool[ndarray, " k"] = ~told
    if told.any():
        kept[told] = np.asarray(false_discovery_control(p_values[told])) <= FALSE_SHARE
    return kept


def within(times: Float[ndarray, " n"], at: float, reach: float) -> slice:
    """Of the times, in order, those that are so near to one."""
    low, high = np.searchsorted(times, [at - reach - 1e-9, at + reach + 1e-9])
    return slice(int(low), int(high))


def _largest(
    size: Float[ndarray, " n"],
    happened: Float[ndarray, " n"],
    at: Float[ndarray, " m"],
    reach: float,
) -> Float[ndarray, " m"]:
    low = np.searchsorted(happened, at - reach - 1e-9)
    high = np.searchsorted(happened, at + reach + 1e-9)
    return np.array(
        [size[a:b].max(initial=0.0) for a, b in zip(low.tolist(), high.tolist(), strict=True)]
    )
