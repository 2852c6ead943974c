"""Flash-and-click files in any container: what tells how late a reader is.

FFmpeg makes them from raw pictures and samples, so each flash is shown, and each click sounds, at
a time that is known whatever the file's own clock starts with. A click is a short tone under a
bell, the same forwards and backwards, so that its middle survives lossy coding.
"""

import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from jaxtyping import Float, Float32, UInt8
from numpy import ndarray

from avdata.errors import RunError

HEIGHT, WIDTH = 96, 128
CLICK_HZ = 1500.0
CLICK_SECONDS = 0.004
"""Standard deviation of the bell."""


@dataclass(frozen=True, slots=True)
class FlashFile:
    """One file to make. Times are seconds from its first picture."""

    suffix: str = "mp4"
    video_codec: str = "libx264"
    audio_codec: str = "aac"
    rate: int = 48_000
    fps: int = 30
    seconds: float = 6.0
    b_frames: int = 2
    sound_start_s: float = 0.0
    """Negative when the sound starts first."""
    variable: bool = False
    """Every third picture of the second half is left out."""
    cut_s: float = 0.0
    """The file is cut here, not at a key frame, by copying packets: MP4 notes it in an edit list.
    Times stay those of the uncut file."""

    @property
    def times(self) -> Float[ndarray, " n"]:
        """Of all pictures, those before the cut left out."""
        numbers = np.arange(round(self.seconds * self.fps))
        left_out = (numbers % 3 == 2) & (numbers > len(numbers) // 2) & self.variable
        shown: Float[ndarray, " n"] = numbers[~left_out] / self.fps
        return shown[shown >= self.cut_s - 1e-6]

    @property
    def lost_s(self) -> float:
        """By how much the file itself makes its sound late. AVI has no timestamps: it cannot say
        when its sound starts, nor that MP3 comes 1105 samples late (LAME 576, decoders 529).
        """
        delay = 1105 / self.rate if self.audio_codec == "libmp3lame" else 0.0
        return delay - self.sound_start_s if self.suffix == "avi" else 0.0

    @property
    def flashes(self) -> list[float]:
        """One a second, beside the full second, on pictures that are shown."""
        numbers = range(self.fps // 2 - self.fps // 2 % 3, round(self.seconds * self.fps), self.fps)
        return [number / self.fps for number in numbers if number / self.fps > self.cut_s + 0.1]


def write_flashes(path: Path, made: FlashFile) -> None:
    """RunError with FFmpeg's own words when it refuses."""
    late = made.sound_start_s
    with tempfile.TemporaryDirectory() as folder:
        sound, whole = Path(folder) / "sound.f32", Path(folder) / f"whole.{made.suffix}"
        sound.write_bytes(_sound(made).astype("<f4").tobytes())
        picture = f"-f rawvideo -pix_fmt gray -s {WIDTH}x{HEIGHT} -r {made.fps}".split()
        heard = f"-f f32le -ar {made.rate} -ac 2".split()
        half = round(made.seconds * made.fps) // 2
        left_out = f"eq(mod(n\\,3)\\,2)*gt(n\\,{half})" if made.variable else "0"
        pictures = f"select=not({left_out}),setpts=PTS+{max(0.0, -late)}/TB"
        samples = f"asetpts=PTS+{max(0.0, late)}/TB"
        coded = ["-c:v", made.video_codec, "-pix_fmt", "yuv420p", "-g", "45", "-threads", "1"]
        coded += ["-b:v", "1M", "-c:a", made.audio_codec]
        if made.video_codec in ("libx264", "libx265", "mpeg4"):
            coded += ["-bf", str(made.b_frames)]
        if made.audio_codec not in ("flac", "pcm_s16le"):
            coded += ["-b:a", "192k"]
        coded += ["-vf", pictures, "-fps_mode", "passthrough", "-af", samples]
        _ffmpeg(
            [*picture, "-i", "pipe:", *heard, "-i", str(sound)],
            [*coded, "-strict", "-2", str(whole if made.cut_s else path)],
            _pictures(made),
        )
        if made.cut_s:
            _ffmpeg(["-ss", f"{made.cut_s:.6f}", "-i", str(whole)], ["-c", "copy", str(path)])


def click_times(
    samples: Float32[ndarray, "c m"], rate: int, near: list[float]
) -> Float[ndarray, " k"]:
    """Where the click nearest to each time has its middle, found within a tenth of a second."""
    mono = samples.mean(axis=0, dtype=np.float64)
    t = np.arange(-round(4 * CLICK_SECONDS * rate), round(4 * CLICK_SECONDS * rate) + 1) / rate
    agreement = np.abs(np.convolve(mono, _click(t)[::-1], mode="same"))
    reach, found = round(0.1 * rate), []
    for at in near:
        low = max(0, round(at * rate) - reach)
        found.append((low + int(agreement[low : round(at * rate) + reach].argmax())) / rate)
    return np.array(found)


def _pictures(made: FlashFile) -> UInt8[ndarray, "n h w"]:
    numbers = np.arange(round(made.seconds * made.fps))
    levels = np.where(np.isin(numbers, np.round(np.array(made.flashes) * made.fps)), 235, 20)
    return np.broadcast_to(levels[:, None, None], (len(numbers), HEIGHT, WIDTH)).astype(np.uint8)


def _sound(made: FlashFile) -> Float32[ndarray, "m 2"]:
    """From where the sound starts to the end of the picture."""
    t = made.sound_start_s + np.arange(round((made.seconds - made.sound_start_s) * made.rate)) / (
        made.rate
    )
    clicks = np.sum([_click(t - flash) for flash in made.flashes], axis=0)
    return np.repeat((0.5 * clicks)[:, None], 2, axis=1).astype(np.float32)


def _click(t: Float[ndarray, " m"]) -> Float[ndarray, " m"]:
    bell: Float[ndarray, " m"] = np.exp(-((t / CLICK_SECONDS) ** 2) / 2)
    return bell * np.cos(2 * np.pi * CLICK_HZ * t)


def _ffmpeg(before: list[str], after: list[str], fed: UInt8[ndarray, "..."] | None = None) -> None:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-hide_banner", "-loglevel", "error"]
    raw = b"" if fed is None else fed.tobytes()
    done = subprocess.run([*command, *before, *after], input=raw, capture_output=True, check=False)
    if done.returncode != 0:
        words = done.stderr.decode(errors="replace").strip().replace("\n", " | ")
        raise RunError(f"{after[-1]}: FFmpeg could not write it: {words[-300:]}")
