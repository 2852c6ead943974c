import json
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from avdata.trainer.metrics import MetricsFile, read_metrics


def write(path: Path, resume: int, last: int, run: int) -> None:
    with MetricsFile(path, resume) as file:
        for step in range(resume + 1, last + 1):
            file.add({"step": step, "run": run})


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.floats(0, 1), st.integers(1, 6)), min_size=1, max_size=5))
def test_each_step_is_there_once_as_the_last_run_made_it(runs: list[tuple[float, int]]) -> None:
    """Each run goes on from a step at or before the one at which the run before it ended."""
    with tempfile.TemporaryDirectory() as folder:
        path, made = Path(folder) / "metrics.jsonl", dict[int, int]()
        for run, (share, count) in enumerate(runs):
            resume = round(share * max(made, default=0))
            write(path, resume, resume + count, run)
            made = {step: by for step, by in made.items() if step <= resume}
            made |= dict.fromkeys(range(resume + 1, resume + count + 1), run)
        assert [(line["step"], line["run"]) for line in read_metrics(path)] == list(made.items())


def test_a_line_cut_short_by_a_kill_is_left_out_and_made_again(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, 0, 3, run=0)
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    assert [line["step"] for line in read_metrics(path)] == [1, 2]
    write(path, 2, 4, run=1)
    assert [(line["step"], line["run"]) for line in read_metrics(path)] == [
        (1, 0),
        (2, 0),
        (3, 1),
        (4, 1),
    ]


def test_a_line_can_be_watched_at_once(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with MetricsFile(path, 0) as file:
        file.add({"step": 1})
        assert json.loads(path.read_text()) == {"step": 1}


def test_a_run_that_has_not_begun_has_no_lines(tmp_path: Path) -> None:
    assert read_metrics(tmp_path / "metrics.jsonl") == []
