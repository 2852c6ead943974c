from types import SimpleNamespace

import pytest

from avdata import progress


@pytest.mark.parametrize(("work", "left_s"), [(1000, 10), (0, 900)])
def test_the_time_left_follows_the_work_where_it_is_known(
    work: int, left_s: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One film and ten small things; without their sizes the film is a tenth of what is left."""
    now = [0.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
    with progress.progress("ingest", 11, work=work) as advance:
        now[0] = 90.0
        advance("film.mp4", work=900 if work else 0)
        for _ in range(10):
            advance(work=10 if work else 0)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"ingest 1/11, {left_s} s left film.mp4", "ingest 11/11, 0 s left"]


def test_what_is_no_work_counts_as_a_thing_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
    with progress.progress("ingest", 3, work=10) as advance:
        for note, work in (("empty.mp4", 0), ("film.mp4", 10), ("none.mp4", 0)):
            now[0] += 6.0
            advance(note, work=work)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "ingest 1/3 empty.mp4",
        "ingest 2/3, 0 s left film.mp4",
        "ingest 3/3, 0 s left none.mp4",
    ]


def test_a_bar_counts_things_though_it_grows_by_their_work(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    with progress.progress("ingest", 12, start=1, work=1000) as advance:
        advance("film.mp4", work=900)
    shown = capsys.readouterr().err
    assert "2/12" in shown
    assert "film.mp4" in shown
