"""Tables as files: CSV that no spreadsheet takes for formulas, and Parquet with exact decimals.

Rows come one after the other, whatever their number. The unit in a column's name says what it holds: `…_usd` and
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
"""Rows that a Parquet file is written by, and that are in memory at once."""
MEDIA_TYPES = {"csv": "text/csv; charset=utf-8", "parquet": "application/vnd.apache.parquet"}

# At the beginning of a cell, or of what becomes one where semicolons or tabs divide cells. Spreadsheets skip spaces
# and quotes there, and read full-width signs as plain ones.
_FORMULA = re.compile("(^|[;\t\r\n|])(?=[\\s\"'\u200b\ufeff]*[=+\\-@\uff1d\uff0b\uff0d\uff20\u2212])|^(?=[\t\r\n])")


class CellType(StrEnum):
    """What a column holds."""

    TEXT = "text"
    COUNT = "count"
    DAY = "day"
    AMOUNT = "amount"
    PERCENT = "percent"


class ParquetMissing(Exception):
    """The library that writes Parquet is not installed; the message says how to get it."""

    def __init__(self) -> None:
        super().__init__("Parquet needs the extra `parquet`: pip install 'farebox-collector[parquet]'")


Columns = Sequence[tuple[str, CellType]]
Cells = Sequence[Any]
"""The values of a row in the order of its columns: integers for counts, texts for everything else, None for nothing."""


def write_csv(columns: Columns, rows: Iterable[Cells], file: IO[bytes]) -> None:
    """Write a CSV file (RFC 4180, UTF-8). A text that a spreadsheet would take for a formula gets a quote in front."""
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
    """A text as a cell that no spreadsheet takes for a formula: with a quote in front of what would begin one."""
    return _FORMULA.sub(r"\1'", text)


def write_parquet(columns: Columns, rows: Iterable[Cells], file: IO[bytes]) -> None:
    """Write a Parquet file, a group of rows at a time. Raises ParquetMissing."""
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
            # The library makes decimals and dates out of their texts, without a detour over floats.
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
