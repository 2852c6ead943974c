"""What untrusted media may cost and where it may reach."""

from dataclasses import dataclass, fields

from avdata.pipeline.media.child import require_usable

# Containers that hold media themselves. Playlists and image sequences (hls, concat, dash, image2)
# are left out: they name other files to open.
FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,mpegts,mpeg,avi,flv,ogg,asf,mxf,ivf,dv,nut,gif,wav,mp3"
)
OPEN_OPTIONS = {"protocol_whitelist": "file,pipe", "format_whitelist": FORMATS}


@dataclass(frozen=True, slots=True)
class MediaLimits:
    """Bounds on one source; beyond them it goes to quarantine and nothing else suffers."""

    max_seconds: float = 6 * 3600.0
    max_pixels: int = 8192 * 8192
    deadline_s: float = 900.0
    """Wall-clock time in which the next ten seconds of a source must be decoded, or after the last
    its measurements be there; else its child is killed.
    """
    memory_gib: float = 16.0
    """Address space of the measuring child."""
    max_fetch_gib: float = 16.0
    """Size up to which a remote source is copied to this machine's temporary folder."""
    decoder_threads: int = 1
    """Sources are measured in parallel, so one thread each is the most work per core."""

    def __post_init__(self) -> None:
        require_usable(self)
        for limit in fields(self):
            if not getattr(self, limit.name) > 0:
                raise ValueError(f"{limit.name} must be positive, not {getattr(self, limit.name)}")
