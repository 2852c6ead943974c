"""Every file below a folder, on this machine or on S3; a folder that cannot be listed is an error.

fsspec walks and globs, too, but leaves out what it cannot list, folders behind links, and on S3
keys with an empty part.
"""

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fsspec import AbstractFileSystem
from fsspec.utils import glob_translate

from avdata.errors import UsageError
from avdata.pipeline.clip_files import OURS
from avdata.pipeline.sources.files import is_remote, listing
from avdata.storage import printable

MAGIC = re.compile(r"[*?\[]")
BROKEN = "broken link"
"""Type of a link that leads to nothing, or to itself."""
CLIPS_TOO = "for `avdata clips` wrote it; to ingest its clips, name it among the sources"
Found = tuple[str, dict[str, Any]]
"""The name that led there, and what the file system says of it, among that its real name."""


def inside(files: AbstractFileSystem, folder: str) -> Iterator[Found]:
    """All at any depth. Links to folders are followed, and each folder is listed once; a link that
    leads nowhere is told of as BROKEN. Folders of clips that are made of sources are left out, and
    said to be, but for the one that was named.

    UsageError names a folder that cannot be listed; what is gone meanwhile is left out.
    """
    yield from _keys(files, f"{folder}/") if _on_s3(files) else _walked(files, folder, [])


def matching(files: AbstractFileSystem, pattern: str) -> Iterator[Found]:
    """As `inside`: what matches, and what is in folders that do."""
    folders_alone, pattern = pattern.endswith("/"), str(files._strip_protocol(pattern))
    below, itself = (re.compile(glob_translate(one)) for one in (f"{pattern}/**", pattern))
    fixed = re.split(MAGIC, pattern, maxsplit=1)[0]
    if _on_s3(files):
        if "/" not in fixed:
            raise UsageError(f"s3://{pattern}: name the bucket; a pattern is for what it holds")
        found = _keys(files, fixed)
    else:
        root = fixed.rpartition("/")[0]
        found = _walked(files, root or "/", _levels(root, pattern))
    for name, info in found:
        if below.match(name) or (itself.match(name) and not folders_alone):
            yield name, info


def _on_s3(files: AbstractFileSystem) -> bool:
    return is_remote(files.unstrip_protocol(""))


def _keys(files: AbstractFileSystem, start: str) -> Iterator[Found]:
    """Objects whose BUCKET/KEY begins so, a page of them in memory; folders are no objects."""
    bucket, _, prefix = start.partition("/")
    asked = {"Bucket": bucket, "Prefix": prefix}
    while True:
        page = files.call_s3("list_objects_v2", **asked)
        for one in page.get("Contents", []):
            name = f"{bucket}/{one['Key']}"
            if not name.endswith("/"):
                info = {"name": name, "size": one["Size"], "ETag": one["ETag"], "type": "file"}
                yield name, info
        if not page.get("IsTruncated"):
            return
        asked["ContinuationToken"] = page["NextContinuationToken"]


def _levels(root: str, pattern: str) -> list[re.Pattern[str]]:
    """What names must be like one, two, ... levels below `root`; deeper there is no telling."""
    parts = pattern[len(root) + 1 :].split("/")
    known = next((at for at, part in enumerate(parts) if "**" in part), len(parts))
    starts = ("/".join([root, *parts[: level + 1]]) for level in range(known))
    return [re.compile(glob_translate(start)) for start in starts]


def _walked(files: AbstractFileSystem, root: str, levels: list[re.Pattern[str]]) -> Iterator[Found]:
    # Links last: what they lead to may have been listed under its own name by then.
    start = root.rstrip("/")
    folders, links = [(start, os.path.realpath(root), 0)], list[tuple[str, str, int]]()
    seen = set[tuple[str, int]]()
    while folders or links:
        name, folder, depth = (folders or links).pop()
        if (folder, depth) in seen:
            continue
        seen.add((folder, depth))
        entries = list(_entries(files, name, folder))
        if name != start and {Path(found).name for found, _ in entries} >= OURS:
            sys.stderr.write(f"avdata: {printable(name)}: left out, {CLIPS_TOO}\n")
            continue
        for found, info in entries:
            if depth < len(levels) and not levels[depth].match(found):
                continue
            if info["type"] != "directory":
                yield found, info
                continue
            is_link = info["name"] != f"{folder.rstrip('/')}/{Path(found).name}"
            below = found, info["name"], min(depth + 1, len(levels))
            (links if is_link else folders).append(below)


def _entries(files: AbstractFileSystem, name: str, folder: str) -> Iterator[Found]:
    """Of one folder; of a link, what it leads to."""
    with listing(printable(name or "/")), contextlib.suppress(FileNotFoundError):
        for info in files.ls(folder, detail=True) if files.isdir(folder) else []:
            found = f"{name}/{Path(info['name']).name}"
            yield found, _led_to(files, info) if info["islink"] else info


def _led_to(files: AbstractFileSystem, link: dict[str, Any]) -> dict[str, Any]:
    target = os.path.realpath(link["name"])
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        if not Path(target).is_symlink():  # A loop leads nowhere.
            there: dict[str, Any] = files.info(target)
            return there
    return {**link, "type": BROKEN}
