"""Every error that avdata raises on purpose.

AvdataError
├── UsageError          what the user gave cannot be used            exit code 2
│   └── ConfigError     a configuration key or value                 exit code 2
├── RunError            the run failed                               exit code 1
│   ├── SourceLost      no name of a source has what was measured    exit code 1
│   ├── SpecMismatch    latents of one encoder, a reader of another  exit code 1
│   ├── WriteRefused    FFmpeg does not write what it is given       exit code 1
│   └── CorruptShard    a shard or its index does not hold together  exit code 1
├── YieldCollapsed      a non-empty input gave nothing usable        exit code 3
└── MediaError          one source cannot be used; becomes a quarantine row, never stops a job

A message is one line that names the file and the value and says what to do.
"""


class AvdataError(Exception):
    """Base of the tree; the command line prints its message without a traceback."""

    exit_code = 1


class UsageError(AvdataError):
    """What the user gave cannot be used: a path, an option, a combination."""

    exit_code = 2


class ConfigError(UsageError):
    """A configuration key is unknown or its value is not of the declared type."""


class RunError(AvdataError):
    """The run failed for a reason that the message names."""


class SourceLost(RunError):
    """No name of a source can be read, or none has the bytes that were measured."""


class SpecMismatch(RunError):
    """Latents written by one encoder met a reader that expects another."""


class WriteRefused(RunError):
    """FFmpeg refuses to write a media file, or what it wrote is not what it was given."""


class CorruptShard(RunError):
    """A shard or its index does not hold together."""


class YieldCollapsed(AvdataError):
    """A non-empty input gave nothing usable."""

    exit_code = 3


class MediaError(AvdataError):
    """One source cannot be used.

    `stage` is where it failed (list, read, probe, decode, cut, memory, deadline), `reason` a short
    stable name for counting, `detail` the decoder's own words.
    """

    def __init__(self, stage: str, reason: str, detail: str = "") -> None:
        super().__init__(f"{stage}: {reason}: {detail}" if detail else f"{stage}: {reason}")
        self.stage = stage
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type["MediaError"], tuple[str, str, str]]:
        return MediaError, (self.stage, self.reason, self.detail)
