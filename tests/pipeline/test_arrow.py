import dataclasses

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from avdata.pipeline.arrow import arrow_schema, from_table, to_table
from avdata.pipeline.record import Clip, ContactEvent, Quarantined
from tests.pipeline.clips import SOUND, a_clip

NUMBERS = st.floats(allow_nan=False)
AUDIO = st.builds(
    dataclasses.replace,
    st.just(SOUND),
    rms_dbfs=NUMBERS,
    lufs=st.none() | NUMBERS,
    onsets_s=st.lists(NUMBERS, max_size=3),
)
EVENTS = st.lists(st.builds(ContactEvent, *[NUMBERS] * 8), max_size=3)
CLIPS = st.builds(
    lambda audio, events, captions, reasons: dataclasses.replace(
        a_clip(), audio=audio, events=events, captions=captions, reasons=reasons
    ),
    st.none() | AUDIO,
    EVENTS,
    st.none() | st.just(a_clip().captions),
    st.lists(st.text(max_size=5), max_size=3),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(CLIPS, max_size=4))
def test_records_come_back_as_they_went(clips: list[Clip]) -> None:
    table = to_table(Clip, clips)
    assert from_table(Clip, table) == clips
    assert table.schema.equals(arrow_schema(Clip), check_metadata=True)


def test_an_absent_struct_is_null_and_its_members_with_it() -> None:
    table = to_table(Clip, [a_clip(audio=None, captions=None), a_clip()])
    assert table["audio"].null_count == 1
    assert table["captions"].is_null().to_pylist() == [True, False]


def test_a_column_is_nullable_only_where_the_record_may_lack_it() -> None:
    schema = arrow_schema(Clip)
    nullable = {name for name in schema.names if schema.field(name).nullable}
    optional = {
        one.name
        for one in dataclasses.fields(Clip)
        if type(None) in getattr(one.type, "__args__", ())
    }
    assert nullable == optional


def test_no_rows_have_the_schema_of_rows() -> None:
    none, one = to_table(Clip, []), to_table(Clip, [a_clip()])
    assert none.schema.equals(one.schema, check_metadata=True)
    assert pa.concat_tables([none, one]).equals(one)


def test_the_schema_says_which_record_it_holds() -> None:
    metadata = arrow_schema(Quarantined).metadata
    assert metadata[b"avdata.record"].startswith(b"Quarantined ")
