import pyarrow as pa

from avdata.errors import MediaError
from avdata.pipeline.arrow import from_table, to_table
from avdata.pipeline.sources.table import SourceRow, by_digest, recall, unread


def table(*rows: SourceRow) -> pa.Table:
    return to_table(SourceRow, rows)


def test_a_digest_is_recalled_while_name_size_and_version_stay() -> None:
    known = table(SourceRow("a", 1, "v", "old", "A"), SourceRow("b", 1, "v", None, "B"))
    rows = [SourceRow("a", 1, "v", "new"), SourceRow("b", 1, "w"), SourceRow("c", 1, "v")]
    after = from_table(SourceRow, recall(table(*rows), known))
    assert [row.digest for row in after] == ["A", None, None]
    assert after[0].extra == "new"
    assert unread(recall(table(*rows), known))["uri"].to_pylist() == ["b", "c"]


def test_the_last_failure_is_recalled_until_there_is_a_digest() -> None:
    row, error = SourceRow("a", 1, "v"), MediaError("read", "first", "")
    once, twice = row.failed(error), row.failed(error).failed(MediaError("read", "second", ""))
    (after,) = from_table(SourceRow, recall(table(row), table(once, twice)))
    assert (after.reason, after.attempts) == ("second", 2)
    assert len(unread(recall(table(row), table(once, twice)))) == 1
    good = SourceRow("a", 1, "v", None, "A")
    assert from_table(SourceRow, recall(table(row), table(once, good, twice))) == [good]
    missing = row.failed(MediaError("list", "missing", ""))
    assert from_table(SourceRow, recall(table(missing), table(good))) == [missing]


def test_names_of_one_content_come_together_in_order() -> None:
    rows = [SourceRow(name, 1, "v", name, digest) for name, digest in ("cA", "bB", "aA", "dB")]
    contents = by_digest(table(*rows, SourceRow("e"))).to_pylist()
    assert [(one["digest"], one["uris"], one["extra"]) for one in contents] == [
        ("A", ["a", "c"], "a"),
        ("B", ["b", "d"], "b"),
    ]
