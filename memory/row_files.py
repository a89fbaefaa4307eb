"""Rows in files: JSON lines, a JSON array, Parquet, each gzipped or not, read and written without holding them whole.

A row is a dictionary. What cannot be read as one comes out as a problem with its line, and reading goes on with the
next line. Strings that are not valid Unicode are mended on writing, because no reader of such files would take them.
This module does not know what a row means. pyarrow is imported only where a Parquet file is touched.
"""

from __future__ import annotations

import codecs
import gzip
import json
import os
import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal, Self, cast

Kind = Literal["jsonl", "json", "parquet"]
_CHUNK_CHARS = 1 << 20
_LONGEST_ITEM_CHARS = 64 << 20
_PARQUET_ROWS = 1_000
_SURROGATE = re.compile("[\ud800-\udfff]")
_SPACE = re.compile(r"[\s,]*")


@dataclass(frozen=True)
class Line:
    """One row of a file, or (`row` None) what is wrong with it. `number` counts lines, or items, from 1.

    `position` is how many bytes of the file (of a Parquet file: rows) have been read when this line comes out.
    """

    number: int
    row: Mapping[str, Any] | None
    problem: str
    position: int


class UnreadableFile(ValueError):
    """The file as a whole cannot be read as rows."""


def kind_of_file(path: Path) -> Kind:
    """What the name says: ``.jsonl``, ``.json`` (both also with ``.gz``) or ``.parquet``. Raises `ValueError`."""
    name = path.name.lower().removesuffix(".gz")
    kinds: tuple[Kind, ...] = ("jsonl", "json", "parquet")
    for suffix in kinds:
        if name.endswith(f".{suffix}"):
            return suffix
    raise ValueError(
        f"File is {path.name!r}; expected a name that ends in .jsonl, .jsonl.gz, .json or .parquet."
    )


def size_of(path: Path) -> int:
    """What `Line.position` reaches at the end of the file."""
    if kind_of_file(path) != "parquet":
        return path.stat().st_size
    from pyarrow import parquet

    return int(parquet.ParquetFile(path).metadata.num_rows)


def read_rows(path: Path) -> Iterator[Line]:
    """The rows of the file, first to last. Raises `UnreadableFile` and `OSError`."""
    if kind_of_file(path) == "parquet":
        yield from _read_parquet(path)
        return
    gzipped = path.suffix.lower() == ".gz"
    with path.open("rb") as raw, gzip.GzipFile(fileobj=raw) if gzipped else nullcontext(raw) as stream:
        try:
            if _begins_with_bracket(path):
                yield from _read_array(cast("IO[bytes]", stream), raw)
            else:
                yield from _read_lines(cast("IO[bytes]", stream), raw)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise UnreadableFile(f"{path} is damaged: {error}. Fetch it again.") from error


class RowWriter:
    """Writes rows to `path` by its suffix; the file appears whole when the `with` block ends well, or not at all.

    `columns` gives each column's Arrow type, which Parquet wants to know before the first row.
    """

    def __init__(self, path: Path, columns: Mapping[str, Any]) -> None:
        self._path, self._columns = path, columns
        self._kind = kind_of_file(path)
        self._partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        self._held: list[dict[str, Any]] = []
        self._out: Any = None

    def __enter__(self) -> Self:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if self._kind == "parquet":
            from pyarrow import parquet

            self._out = parquet.ParquetWriter(self._partial, _schema(self._columns))
        elif self._path.suffix.lower() == ".gz":
            self._out = gzip.open(self._partial, "wt", encoding="utf-8", newline="\n", compresslevel=6)
        else:
            self._out = self._partial.open("w", encoding="utf-8", newline="\n")
        self._written = 0
        return self

    def write(self, row: Mapping[str, Any]) -> None:
        """Write one row; its columns are those that the writer was made with."""
        mended = _mended(row)
        if self._kind == "parquet":
            self._held.append(mended)
            if len(self._held) == _PARQUET_ROWS:
                self._write_held()
        else:
            opening = {"json": "[\n" if not self._written else ",\n"}.get(self._kind, "")
            closing = "" if self._kind == "json" else "\n"
            self._out.write(f"{opening}{json.dumps(mended, ensure_ascii=False)}{closing}")
        self._written += 1

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if kind is None:
            if self._held:
                self._write_held()
            if self._kind == "json":
                self._out.write("\n]\n" if self._written else "[]\n")
        self._out.close()
        if kind is None:
            os.replace(self._partial, self._path)
        else:
            with suppress(FileNotFoundError):
                self._partial.unlink()

    def _write_held(self) -> None:
        import pyarrow

        self._out.write_table(pyarrow.Table.from_pylist(self._held, schema=_schema(self._columns)))
        self._held = []


def _schema(columns: Mapping[str, Any]) -> Any:
    """An Arrow schema. A column's type is a Python type, ``[type]`` for a list, or ``{name: type}`` for a struct."""
    import pyarrow

    def arrow(kind: Any) -> Any:
        if isinstance(kind, list):
            return pyarrow.list_(arrow(kind[0]))
        if isinstance(kind, dict):
            return pyarrow.struct([(name, arrow(inner)) for name, inner in kind.items()])
        plain = {str: pyarrow.string(), int: pyarrow.int64(), float: pyarrow.float64(), bool: pyarrow.bool_()}
        return plain[kind]

    return pyarrow.schema([(name, arrow(kind)) for name, kind in columns.items()])


def _mended(value: Any) -> Any:
    """`value` with the replacement character for every lone surrogate."""
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, Mapping):
        return {name: _mended(inner) for name, inner in value.items()}
    return [_mended(inner) for inner in value] if isinstance(value, list | tuple) else value


def _read_lines(stream: IO[bytes], raw: IO[bytes]) -> Iterator[Line]:
    for number, line in enumerate(stream, 1):
        if line.strip():
            row, problem = _row_of(line)
            yield Line(number, row, problem, raw.tell())


def _row_of(line: bytes) -> tuple[Mapping[str, Any] | None, str]:
    try:
        value = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        return None, f"not UTF-8 ({error.reason} at byte {error.start})"
    except json.JSONDecodeError as error:
        return None, f"not JSON ({error.msg} at character {error.pos})"
    except RecursionError:
        return None, "JSON nested too deeply"
    return _object(value)


def _object(value: Any) -> tuple[Mapping[str, Any] | None, str]:
    if isinstance(value, dict):
        return value, ""
    return None, f"a JSON {type(value).__name__} where an object was expected"


def _begins_with_bracket(path: Path) -> bool:
    opener = gzip.open if path.suffix.lower() == ".gz" else open
    with opener(path, "rb") as stream:
        start = stream.read(64)
    return start.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"[")


def _read_array(stream: IO[bytes], raw: IO[bytes]) -> Iterator[Line]:
    """The items of one JSON array, decoded one by one as the file is read."""
    decoder, text = json.JSONDecoder(), codecs.getreader("utf-8-sig")(stream, "replace")
    held, number = text.read(_CHUNK_CHARS).lstrip(), 0
    at = 1
    while True:
        at = cast("re.Match[str]", _SPACE.match(held, at)).end()
        if held.startswith("]", at):
            return
        try:
            value, at = decoder.raw_decode(held, at)
        except json.JSONDecodeError as error:
            more = text.read(_CHUNK_CHARS) if len(held) - at < _LONGEST_ITEM_CHARS else ""
            if not more:
                problem = f"not JSON ({error.msg}); the file cannot be read from here on"
                yield Line(number + 1, None, problem, raw.tell())
                return
            held, at = held[at:] + more, 0
            continue
        except RecursionError:
            problem = "JSON nested too deeply; the file cannot be read from here on"
            yield Line(number + 1, None, problem, raw.tell())
            return
        number += 1
        row, problem = _object(value)
        yield Line(number, row, problem, raw.tell())


def _read_parquet(path: Path) -> Iterator[Line]:
    import pyarrow
    from pyarrow import parquet

    number = 0
    try:
        for batch in parquet.ParquetFile(path).iter_batches(batch_size=_PARQUET_ROWS):
            for row in batch.to_pylist():
                number += 1
                yield Line(number, row, "", number)
    except pyarrow.ArrowException as error:
        raise UnreadableFile(f"{path} is damaged or no Parquet file: {error}") from error
