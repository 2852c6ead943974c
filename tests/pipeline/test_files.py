import os
from pathlib import Path

import pytest

from avdata.errors import UsageError
from avdata.pipeline.media.files import find_sources


def touched(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())


def names(root: Path, *paths: Path) -> list[str]:
    return [str(source.path.relative_to(root)) for source in find_sources(paths)]


def test_videos_are_found_by_suffix_at_any_depth_in_order(tmp_path: Path) -> None:
    touched(tmp_path, "b.mp4", "a/z.MKV", "a/deep/x.webm", "notes.txt", "c.jpg", "mp4", ".mp4")
    assert names(tmp_path, tmp_path) == ["a/deep/x.webm", "a/z.MKV", "b.mp4"]


def test_a_file_named_itself_is_taken_whatever_its_suffix(tmp_path: Path) -> None:
    touched(tmp_path, "a.mp4", "odd.bin")
    assert names(tmp_path, tmp_path / "odd.bin") == ["odd.bin"]
    assert names(tmp_path, tmp_path, tmp_path / "odd.bin") == ["a.mp4", "odd.bin"]


def test_a_file_named_twice_or_through_a_link_is_one(tmp_path: Path) -> None:
    touched(tmp_path, "a.mp4")
    (tmp_path / "link.mp4").symlink_to(tmp_path / "a.mp4")
    assert names(tmp_path, tmp_path, tmp_path / "a.mp4", tmp_path) == ["a.mp4"]


def test_the_way_it_was_named_does_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touched(tmp_path, "in/a.mp4")
    monkeypatch.chdir(tmp_path)
    wanted = find_sources([tmp_path / "in"])
    assert find_sources([Path("in")]) == find_sources([Path("in/../in/a.mp4")]) == wanted


def test_a_folder_named_like_a_video_is_none(tmp_path: Path) -> None:
    touched(tmp_path, "a.mp4/b.mp4")
    assert names(tmp_path, tmp_path) == ["a.mp4/b.mp4"]


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    touched(tmp_path, "a.mp4")
    with pytest.raises(UsageError, match=r"missing: no such file or folder"):
        find_sources([tmp_path, tmp_path / "missing"])


def test_nothing_to_do_says_what_was_looked_for(tmp_path: Path) -> None:
    touched(tmp_path, "notes.txt")
    with pytest.raises(UsageError, match=r"no media files there.*\.mp4") as caught:
        find_sources([tmp_path])
    assert str(tmp_path) in str(caught.value)


def test_the_key_names_this_version_of_the_file_under_these_settings(tmp_path: Path) -> None:
    touched(tmp_path, "a.mp4", "b.mp4")
    a, b = find_sources([tmp_path])
    assert find_sources([a.path])[0].key("s") == a.key("s")
    keys = {a.key("s"), b.key("s"), a.key("other settings")}
    os.utime(a.path, ns=(0, 0))
    keys.add(find_sources([a.path])[0].key("s"))
    a.path.write_bytes(b"longer than it was")
    keys.add(find_sources([a.path])[0].key("s"))
    assert len(keys) == 5
