"""Write tables as files: CSV safe from formula injection, and Parquet with exact decimals.

Rows are streamed. The unit in a column's name gives its type: `…_usd` and
`…_credits` are decimals with nine places, `…_percent` with two, `day` is a date, other texts are texts.
"""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from itertools import islice
from typing import IO, Any

ROW_GROUP = 10_000
"""Rows per Parquet row group, and the maximum in memory."""
MEDIA_TYPES = {"csv": "text/csv; charset=utf-8", "parquet": "application/vnd.apache.parquet"}

# At the start of a cell, also if semicolons or tabs separate cells. Spreadsheets skip spaces and quotes there, and
# read full-width signs as plain ones.
_FORMULA = re.compile("(^|[;\t\r\n|])(?=[\\s\"'\u200b\ufeff]*[=+\\-@\uff1d\uff0b\uff0d\uff20\u2212])|^(?=[\t\r\n])")


class CellType(StrEnum):
    """The type of a column."""

    TEXT = "text"
    COUNT = "count"
    DAY = "day"
    AMOUNT = "amount"
    PERCENT = "percent"


class ParquetMissing(Exception):
    """The library that writes Parquet is not installed; the message tells how to install it."""

    def __init__(self) -> None:
        super().__init__("Parquet needs the extra `parquet`: pip install 'farebox-collector[parquet]'")


Columns = Sequence[tuple[str, CellType]]
Cells = Sequence[Any]
"""The values of a row in column order: integers for counts, text for all else, None for no value."""


def write_csv(columns: Columns, rows: Iterable[Cells], file: IO[bytes]) -> None:
    """Write a CSV file (RFC 4180, UTF-8). Text that a spreadsheet would read as a formula gets a leading quote."""
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    writer = csv.writer(text)
    writer.writerow([name for name, _ in columns])
    texts = [place for place, (_, kind) in enumerate(columns) if kind is CellType.TEXT]
    for row in rows:
        cells = list(row)
        for place in texts:
            value = cells[place]
            if isinstance(value, str):
                cells[place] = harmless(value)
        writer.writerow(cells)
    text.detach()


def harmless(text: str) -> str:
    """Return text that no spreadsheet reads as a formula, with a leading quote where needed."""
    return _FORMULA.sub(r"\1'", text)


def write_parquet(columns: Columns, rows: Iterable[Cells], file: IO[bytes]) -> None:
    """Write a Parquet file, one row group at a time. Raises ParquetMissing."""
    try:
        from arro3 import core
        from arro3.io import write_parquet as write
    except ImportError:
        raise ParquetMissing from None
    types = {
        CellType.TEXT: core.DataType.string(),
        CellType.COUNT: core.DataType.int64(),
        CellType.DAY: core.DataType.date32(),
        CellType.AMOUNT: core.DataType.decimal128(38, 9),
        CellType.PERCENT: core.DataType.decimal128(18, 2),
    }
    schema = core.Schema([core.Field(name, types[kind], nullable=True) for name, kind in columns])

    def batches() -> Iterator[Any]:
        left = iter(rows)
        while group := list(islice(left, ROW_GROUP)):
            # The library converts text to decimals and dates exactly, without floats.
            stated = (core.DataType.int64() if kind is CellType.COUNT else types[CellType.TEXT] for _, kind in columns)
            made = [
                core.Array(list(values), type=source)
                for values, source in zip(zip(*group, strict=True), stated, strict=True)
            ]
            arrays = [array.cast(types[kind]) for array, (_, kind) in zip(made, columns, strict=True)]
            yield core.RecordBatch.from_arrays(arrays, schema=schema)

    reader = core.RecordBatchReader.from_batches(schema, batches())
    write(reader, file, compression="zstd(3)", max_row_group_size=ROW_GROUP)


WRITERS = {"csv": write_csv, "parquet": write_parquet}
