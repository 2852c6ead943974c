import numpy as np

from avdata.trainer.data.buffers import Ring


def test_a_block_is_not_free_before_all_of_it_is_cut() -> None:
    """Also where what was cut first is gone already."""
    ring = Ring(2)
    lease = ring.lease(1000)
    first = lease.take((10,), np.float16)
    del first
    rest = lease.take((10,), np.float16)
    rest[:] = 1
    other = ring.lease(1000).take((10,), np.float16)
    other[:] = 2
    lease.close()
    assert (rest == 1).all()
    assert ring.num_blocks == 2
    del rest
    ring.lease(1000)
    assert ring.num_blocks == 2  # Now it is.
