"""A folder of shards: what encoded it, how many samples lie where, what the first ones say."""

import json
from collections import Counter
from pathlib import Path

from markupsafe import Markup

from avdata.errors import CorruptShard
from avdata.pipeline.report import elements, units
from avdata.pipeline.report.page import Section
from avdata.pipeline.shards.dataset import Dataset, open_dataset, read_members

CAPTIONS_SHOWN = 5
"""A split."""


def shards_section(root: Path, anchor: str) -> Section:
    """A shard that does not hold together is said so, and the rest of the page stands."""
    place = elements.place(root)
    try:
        dataset = open_dataset(root)
        body = [_overview(dataset), _places(dataset), _subsets(dataset), _specs(dataset)]
    except CorruptShard as error:
        return Section("Shards", place + elements.note(f"These shards are broken: {error}"), anchor)
    return Section("Shards", elements.joined([place, *body, _first_captions(dataset)]), anchor)


def _overview(dataset: Dataset) -> Markup:
    clip, samples = dataset.clip, sum(one["num_samples"] for one in dataset.shards)
    seconds = sum(
        one["num_samples"] * dataset.buckets[one["bucket"]].seconds for one in dataset.shards
    )
    lengths = sorted({shape.seconds for shape in dataset.buckets.values()})
    num_bytes = sum(one["size_bytes"] for one in dataset.shards)
    return elements.tiles(
        [
            ("Samples", f"{samples:,}", f"in {units.plural(len(dataset.shards), 'shard')}"),
            (
                "Time",
                units.duration(seconds),
                f"{' or '.join(f'{one:.2f}' for one in lengths)} s a sample",
            ),
            ("Size", units.size(num_bytes), f"{units.size(num_bytes / max(1, samples))} a sample"),
            (
                "Clip",
                f"{len(dataset.buckets)} shapes"
                if len(dataset.buckets) > 1
                else f"{clip.num_frames} x {clip.height} x {clip.width}",
                f"frames at {clip.fps}/s, sound at {clip.sample_rate:,} Hz",
            ),
        ]
    )


def _places(dataset: Dataset) -> Markup:
    shards: Counter[tuple[str, str]] = Counter()
    samples: Counter[tuple[str, str]] = Counter()
    num_bytes: Counter[tuple[str, str]] = Counter()
    for one in dataset.shards:
        key = one["split"], one["bucket"]
        shards[key] += 1
        samples[key] += one["num_samples"]
        num_bytes[key] += one["size_bytes"]
    rows: list[list[elements.Cell]] = [
        [*key, shards[key], samples[key], units.size(num_bytes[key])] for key in sorted(shards)
    ]
    head = ["Split", "Bucket", "Shards", "Samples", "Size"]
    listed = elements.table(head, rows, "Splits and buckets", num_text=2)
    return elements.heading("Splits and buckets") + listed


def _subsets(dataset: Dataset) -> Markup:
    splits = _splits(dataset)
    inside: dict[str, Counter[str]] = {split: Counter() for split in splits}
    sources = {}
    for split in splits:
        entries = dataset.samples(split)
        sources[split] = len({entry.source for entry in entries})
        for entry in entries:
            inside[split].update(entry.subsets or ["in no subset"])
    names = sorted({name for counts in inside.values() for name in counts})
    rows: list[list[elements.Cell]] = [
        [name, *(inside[split][name] for split in splits)] for name in names
    ]
    rows.append(["different sources", *(sources[split] for split in splits)])
    listed = elements.table(["Subset", *splits], rows, "Samples by subset")
    return elements.heading("Subsets and sources") + listed


def _specs(dataset: Dataset) -> Markup:
    specs = dataset.specs
    video, audio = specs.video, specs.audio
    strides = f"{video.stride_time} x {video.stride_height} x {video.stride_width}"
    latents = (
        (video.name, video.digest, f"{video.channels} channels, stride {strides}"),
        (
            audio.name,
            audio.digest,
            f"{audio.channels} channels, hop {audio.hop} at {audio.sample_rate:,} Hz",
        ),
    )
    texts = [
        (one.name, one.digest, f"width {one.width}, at most {one.max_tokens} tokens")
        for one in (specs.video_text, specs.audio_text)
    ]
    rows: list[list[elements.Cell]] = [
        [role, name, facts, Markup("<code>{}</code>").format(digest)]
        for role, (name, digest, facts) in zip(
            ("video", "audio", "video text", "audio text"), (*latents, *texts), strict=True
        )
    ]
    head = ["Role", "Encoder", "Output", "Digest"]
    return elements.heading("Encoders") + elements.table(head, rows, "Encoders", num_text=4)


def _first_captions(dataset: Dataset) -> Markup:
    rows: list[list[elements.Cell]] = []
    try:
        for split in _splits(dataset):
            for entry in dataset.samples(split)[:CAPTIONS_SHOWN]:
                meta = json.loads(read_members(dataset.root, entry, ["json"])["json"])
                captions = meta["captions"]
                name = Path(meta["source"]).name
                rows.append([split, name, captions["video"], captions["audio"]])
    except CorruptShard as error:
        return elements.note(f"The captions cannot be read: {error}")
    head = ["Split", "Source", "Seen", "Heard"]
    return elements.heading("First captions") + elements.table(head, rows, "First captions", 4)


def _splits(dataset: Dataset) -> list[str]:
    return sorted({one["split"] for one in dataset.shards})
