"""The members that are arrays: `.npy` files of float16, read by any number of threads.

numpy reads a header with `ast.literal_eval`. CPython 3.11 counts the depth of that parser for the
process and not for the thread, and a collection within it may hand over to another thread: two that
parse at once then get `SystemError: AST constructor recursion depth mismatch`
(python/cpython#106905). So a header that is what numpy would write is not parsed, and others are
parsed one at a time.
"""

import io
import threading

import numpy as np
from numpy.lib import format as numpy_format
from numpy.typing import NDArray

from avdata.errors import CorruptShard

FLOAT16 = np.dtype("<f2")
_PARSER = threading.Lock()


def read_npy(data: bytes) -> NDArray[np.float16]:
    """The array of a member; never unpickles."""
    with _PARSER:
        array: NDArray[np.float16] = np.load(io.BytesIO(data), allow_pickle=False)
    return array


def require_header(header: bytes, shape: tuple[int, ...], name: str) -> None:
    """CorruptShard, with the member's name, when the header is not that of float16 of the shape."""
    if header == _header_of(shape):
        return
    try:
        with _PARSER:
            found, fortran, dtype = _parse(header)
    except ValueError as error:
        raise CorruptShard(f"{name} is no array ({error})") from error
    if (found, fortran, dtype) != (shape, False, FLOAT16):
        raise CorruptShard(f"{name} holds {dtype} {found}, the index says float16 {shape}")


def _header_of(shape: tuple[int, ...]) -> bytes:
    file = io.BytesIO()
    facts = {"descr": FLOAT16.str, "fortran_order": False, "shape": shape}
    numpy_format.write_array_header_1_0(file, facts)
    return file.getvalue()


def _parse(header: bytes) -> tuple[tuple[int, ...], bool, np.dtype]:
    file = io.BytesIO(header)
    first = numpy_format.read_magic(file) == (1, 0)
    read = numpy_format.read_array_header_1_0 if first else numpy_format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    return shape, fortran, dtype
