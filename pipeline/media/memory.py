"""Want of memory, told from damage: under a bound on memory, decoders call good packets broken."""

import mmap

import cv2

ROOM = 256 << 20
"""Bytes: a picture of the most pixels that are read, in four bytes each."""


def require_room() -> None:
    """MemoryError where not even a picture's memory can be had, so that a refusal of the decoder
    says nothing about the file.
    """
    try:
        mmap.mmap(-1, ROOM).close()  # Never touched, so it costs address space alone.
    except OSError as error:
        raise MemoryError from error


def is_shortage(error: Exception) -> bool:
    """Whether memory could not be had; OpenCV has an error of its own for that."""
    no_memory = isinstance(error, cv2.error) and error.code == cv2.Error.StsNoMem
    return no_memory or isinstance(error, MemoryError)
