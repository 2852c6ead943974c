"""The Parquet schema, derived from the record's dataclasses so that it is written once."""

import dataclasses
import types
import typing
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pydantic

from avdata.pipeline.record import VERSION

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Row = TypeVar("Row", bound="DataclassInstance")
SCALARS: dict[object, pa.DataType] = {
    str: pa.string(),
    int: pa.int64(),
    float: pa.float64(),
    bool: pa.bool_(),
}


def arrow_schema(row: type[object]) -> pa.Schema:
    """Columns of a record class; its version travels in the metadata."""
    fields = [_field(name, hint) for name, hint in typing.get_type_hints(row).items()]
    return pa.schema(fields, metadata={"avdata.record": f"{row.__name__} {VERSION}"})


def to_table(row: type[Row], rows: Sequence[Row]) -> pa.Table:
    """A table with one row a record, in the order given."""
    plain = [dataclasses.asdict(each) for each in rows]
    return pa.Table.from_pylist(plain, schema=arrow_schema(row))


def from_table(row: type[Row], table: pa.Table) -> list[Row]:
    """The records of a table that `to_table` made."""
    record = pydantic.TypeAdapter(row)
    return [record.validate_python(one) for one in table.to_pylist()]


def leaves(schema: pa.Schema) -> dict[str, pa.DataType]:
    """Types by dotted path, of all that is no struct."""

    def walk(prefix: str, one: pa.Field) -> list[tuple[str, pa.DataType]]:
        if pa.types.is_struct(one.type):
            return [leaf for inner in one.type for leaf in walk(f"{prefix}{one.name}.", inner)]
        return [(prefix + one.name, one.type)]

    return dict(leaf for one in schema for leaf in walk("", one))


def narrowed(table: pa.Table, names: Sequence[str]) -> pa.Table:
    """Some columns by name, of a struct those of its fields that are named `column.field`."""
    wanted: dict[str, set[str]] = {}
    for name in names:
        head, _, rest = name.partition(".")
        wanted.setdefault(head, set()).add(rest.partition(".")[0])
    for head, parts in wanted.items():
        if "" not in parts:
            at, column = table.schema.get_field_index(head), table[head].combine_chunks()
            fields = [field for field in column.type if field.name in parts]
            values = [pc.struct_field(column, field.name) for field in fields]
            column = pa.StructArray.from_arrays(values, fields=fields, mask=pc.is_null(column))
            table = table.set_column(at, table.schema.field(at).with_type(column.type), column)
    return table.select(list(wanted))


def _field(name: str, hint: object) -> pa.Field:
    optional = isinstance(hint, types.UnionType)
    if optional:
        hint = next(part for part in typing.get_args(hint) if part is not type(None))
    return pa.field(name, _type(hint), nullable=optional)


def _type(hint: object) -> pa.DataType:
    if hint in SCALARS:
        return SCALARS[hint]
    if typing.get_origin(hint) is list:
        return pa.list_(_type(typing.get_args(hint)[0]))
    assert isinstance(hint, type), f"no Arrow type for {hint}"
    assert dataclasses.is_dataclass(hint), f"no Arrow type for {hint}"
    # Nullable inside: where an optional struct is absent, so are its members.
    inner = typing.get_type_hints(hint).items()
    return pa.struct([_field(name, part).with_nullable(True) for name, part in inner])
