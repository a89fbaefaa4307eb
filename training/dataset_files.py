"""Rows out of datasets, as they stand there: JSON, JSONL, CSV, TSV and Parquet files, folders of these, Hub names.

Every row carries where it stood, so that a bad one can be found again. A line that cannot be read becomes a row with a
problem instead of an error, and bytes that are not UTF-8 are kept as what Python calls surrogates, for whoever looks
at the texts to find. What the columns mean is `training.dataset_rows`' to say. No code that comes with a dataset is
ever run.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LINES, WHOLE, TABLES, COLUMNS = (".jsonl", ".ndjson"), (".json",), (".csv", ".tsv"), (".parquet",)
_SUFFIXES = (*LINES, *WHOLE, *TABLES, *COLUMNS)
_NOT_ROWS = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "package.json"}
_SPLITS = {
    "train": ("train", "training"),
    "test": ("test", "testing", "eval", "evaluation"),
    "validation": ("validation", "valid", "val", "dev"),
}
"""How a file's name tells which part of a dataset it holds."""
_LONGEST_CELL = 2**27


class DatasetUnreadable(ValueError):
    """A dataset that cannot be opened, with the reason and the way out."""


@dataclass(frozen=True)
class RawRow:
    """One row by column names; or, where it could not be read, no columns and the `problem`."""

    where: str
    columns: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""


def read_rows(named: str, *, split: str = "train", config: str = "") -> Iterator[RawRow]:
    """All rows of the file, folder or Hub dataset `named`, in order. Raises `DatasetUnreadable`.

    Of a folder or a Hub dataset with several parts only `split` is read; `config` chooses among those of a Hub dataset.
    """
    path = Path(named).expanduser()
    if path.is_dir():
        yield from _folder_rows(path, split)
    elif path.exists():
        yield from _file_rows(path, name=path.name)
    elif _looks_like_a_hub_name(named):
        yield from _hub_rows(named, split=split, config=config)
    else:
        raise DatasetUnreadable(
            f"There is no file or folder {named}. Name one that exists, or a dataset on the Hub as owner/name."
        )


def _looks_like_a_hub_name(named: str) -> bool:
    owner, _, name = named.partition("/")
    outside = named.startswith((".", "/", "~")) or "/" in name or "\\" in named
    return bool(owner and name) and not outside and _kind_of(Path(named)) == ""


def _folder_rows(folder: Path, split: str) -> Iterator[RawRow]:
    if (folder / "state.json").is_file():
        yield from _saved_rows(folder)
        return
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file()
        and _kind_of(path)
        and path.name not in _NOT_ROWS
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    chosen = _files_of_split(files, folder, split)
    if not chosen:
        there = ", ".join(str(path.relative_to(folder)) for path in files[:8]) or "none"
        raise DatasetUnreadable(
            f"{folder} holds no file for the split {split!r}; dataset files there: {there}. Expected one that ends in "
            f"{', '.join(_SUFFIXES)} (or .gz behind it). Name the file itself, or another --dataset-split."
        )
    for path in chosen:
        yield from _file_rows(path, name=str(path.relative_to(folder)))


def _files_of_split(files: list[Path], folder: Path, split: str) -> list[Path]:
    """The files whose names claim `split`; where none does, those that claim no other."""
    own = _SPLITS.get(split, (split,))
    claimed = {path: _words(path.relative_to(folder)) for path in files}
    mine = [path for path in files if claimed[path] & set(own)]
    others = {word for words in _SPLITS.values() for word in words} - set(own)
    return mine or [path for path in files if split == "train" and not claimed[path] & others]


def _words(path: Path) -> set[str]:
    text = "".join(letter if letter.isalnum() else " " for letter in str(path).lower())
    return set(text.split())


def _kind_of(path: Path) -> str:
    """The suffix that says how the file is written, without .gz; empty for a file of another kind."""
    name = path.name.lower().removesuffix(".gz")
    return next((suffix for suffix in _SUFFIXES if name.endswith(suffix)), "")


def _file_rows(path: Path, *, name: str) -> Iterator[RawRow]:
    kind = _kind_of(path)
    if not kind:
        raise DatasetUnreadable(
            f"{path} is no dataset file: expected a name that ends in {', '.join(_SUFFIXES)} (or .gz behind it)."
        )
    try:
        if kind in COLUMNS:
            yield from _parquet_rows(path, name)
        else:
            text = _text_of(path)
            if kind in TABLES:
                yield from _table_rows(text, name, delimiter="\t" if kind == ".tsv" else ",")
            elif kind in WHOLE:
                yield from _whole_rows(text, name)
            else:
                yield from _line_rows(text, name)
    except (OSError, EOFError) as error:
        raise DatasetUnreadable(f"{path} cannot be read ({error}). Is the file whole?") from error


def _text_of(path: Path) -> str:
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        content = gzip.decompress(content)
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16", errors="surrogatepass")
    return content.decode("utf-8-sig", errors="surrogateescape")


def _line_rows(text: str, name: str) -> Iterator[RawRow]:
    # Only "\n" ends a line of JSON: other line separators may stand inside its strings.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield _object(line, f"{name}:{number}")


def _object(line: str, where: str) -> RawRow:
    try:
        value = json.loads(line)
    except (json.JSONDecodeError, RecursionError):
        return RawRow(where, problem="not JSON")
    return RawRow(where, value) if isinstance(value, dict) else RawRow(where, problem="not a JSON object")


def _whole_rows(text: str, name: str) -> Iterator[RawRow]:
    """A file that is one JSON value: a list of rows, one row, or a list of rows under the name ``data`` or ``rows``."""
    try:
        value = json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        yield from _line_rows(text, name)  # many files of lines are called .json
        return
    if isinstance(value, dict):
        value = next((value[key] for key in ("data", "rows") if isinstance(value.get(key), list)), [value])
    for number, row in enumerate(value if isinstance(value, list) else [], 1):
        where = f"{name}, row {number}"
        yield RawRow(where, row) if isinstance(row, dict) else RawRow(where, problem="not a JSON object")


def _table_rows(text: str, name: str, *, delimiter: str) -> Iterator[RawRow]:
    csv.field_size_limit(_LONGEST_CELL)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    header = next(reader, [])
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error:
            yield RawRow(f"{name}:{line}", problem="not a line of the table")
            continue
        if not cells:
            continue
        if len(cells) != len(header):
            yield RawRow(f"{name}:{line}", problem="another number of cells than the header")
            continue
        yield RawRow(f"{name}:{line}", dict(zip(header, cells, strict=True)))


def _parquet_rows(path: Path, name: str) -> Iterator[RawRow]:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    number = 0
    try:
        with ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1_000):
                for row in batch.to_pylist():
                    number += 1
                    yield RawRow(f"{name}, row {number}", row)
    except ArrowException as error:
        raise DatasetUnreadable(f"{path} is no whole Parquet file ({error}).") from error


def _saved_rows(folder: Path) -> Iterator[RawRow]:
    """A folder that `datasets.Dataset.save_to_disk` wrote."""
    from datasets import load_from_disk

    try:
        rows = load_from_disk(str(folder))
    except (OSError, ValueError) as error:
        raise DatasetUnreadable(f"{folder} cannot be read as a saved dataset ({error}).") from error
    yield from number_rows(rows, folder.name)


def _hub_rows(named: str, *, split: str, config: str) -> Iterator[RawRow]:
    from datasets import load_dataset

    try:
        rows = load_dataset(named, name=config or None, split=split)
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise DatasetUnreadable(
            f"The dataset {named} (split {split!r}) cannot be had from the Hub: {reason}. Check its name, "
            "--dataset-split and --dataset-config and the network, or download it and name the folder."
        ) from error
    yield from number_rows(rows, named)


def number_rows(rows: Iterable[Mapping[str, Any]], name: str) -> Iterator[RawRow]:
    """Rows that came without line numbers."""
    for number, row in enumerate(rows, 1):
        yield RawRow(f"{name}, row {number}", row)
