"""Does measuring a film of hours cost more memory, or more time a minute, than a short one?

    python benchmarks/long_sources.py MEDIA --minutes 5 --minutes 60

MEDIA, which has sound, is repeated without coding it again until it is so long, then measured as
`avdata ingest` does, on one thread, each length in a process of its own.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import av
import cv2

from avdata.pipeline.measure.source import IngestConfig, measure_source
from avdata.pipeline.media.limits import MediaLimits


def main() -> None:
    """One process a length, so that none inherits the memory of another."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("media", type=Path)
    parser.add_argument("--minutes", type=int, action="append", required=True)
    given = parser.parse_args()
    if len(given.minutes) > 1:
        for minutes in given.minutes:
            command = [sys.executable, __file__, str(given.media), "--minutes", str(minutes)]
            subprocess.run(command, check=True)
        return
    with tempfile.TemporaryDirectory() as folder:
        film = Path(folder) / given.media.name
        repeated(given.media, film, 60 * given.minutes[0])
        _one(film, given.minutes[0])


def repeated(media: Path, film: Path, seconds: float) -> None:
    """Copies the packets of `media` again and again until there are so many seconds."""
    at = 0.0
    with av.open(str(media)) as first, av.open(str(film), "w") as out:
        streams = [first.streams.video[0], first.streams.audio[0]]
        copies = [out.add_stream_from_template(stream) for stream in streams]
        while at < seconds:
            end = at
            with av.open(str(media)) as container:
                originals = [container.streams.video[0], container.streams.audio[0]]
                for packet in container.demux(originals):
                    if packet.dts is None or packet.pts is None or packet.time_base is None:
                        continue
                    shift = round(at / packet.time_base)
                    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                    end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
                    packet.stream = copies[originals.index(packet.stream)]
                    out.mux(packet)
            at = end


def _one(film: Path, minutes: int) -> None:
    cv2.setNumThreads(1)
    config, began = IngestConfig(limits=MediaLimits(max_seconds=1e9)), time.process_time()
    clips = measure_source(film, film.name, config)
    seconds = (time.process_time() - began) / minutes
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sys.stdout.write(
        f"{minutes} minutes: {len(clips)} clips, at most {peak:.0f} MiB, "
        f"CPU {seconds:.2f} s a minute\n"
    )


if __name__ == "__main__":
    main()
