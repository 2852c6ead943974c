"""Measuring in a child process: what a hostile file does to FFmpeg costs that one source."""

from pathlib import Path

from avdata.pipeline.measure.source import IngestConfig, measure_source
from avdata.pipeline.media.child import Child
from avdata.pipeline.record import Clip

SOURCES_PER_CHILD = 200


class MeasuringChild:
    """Measures sources one after another; close it when done."""

    def __init__(self, config: IngestConfig) -> None:
        self._config = config
        self._child = Child(measure_source, "measuring", config.limits, SOURCES_PER_CHILD)

    def measure(self, path: Path, uri: str) -> list[Clip]:
        """As `measure_source`; crash, hang and exhaustion become MediaError."""
        return self._child.call(uri, path, uri, self._config)

    def close(self) -> None:
        """Ends the child, if one runs."""
        self._child.close()
