"""Rows in files: whatever is written comes back, and a line that is no row harms no other."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from memory import row_files
from memory.row_files import RowWriter, UnreadableFile, kind_of_file, read_rows, size_of

COLUMNS = {"text": str, "number": int, "label": bool, "said": [{"role": str, "content": str}], "texts": [str]}
ROWS = [
    {
        "text": f'Zeile {n}\n"quoted" \x00 😀',
        "number": n,
        "label": n % 2 == 0,
        "said": [{"role": "user", "content": "q" * n}],
        "texts": ["a", "b"],
    }
    for n in range(7)
]
NAMES = ["rows.jsonl", "rows.jsonl.gz", "rows.json", "rows.json.gz", "rows.parquet"]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_written_is_read(tmp_path: Path, name: str) -> None:
    with RowWriter(tmp_path / name, COLUMNS) as writer:
        for row in ROWS:
            writer.write(row)
    lines = list(read_rows(tmp_path / name))
    assert [line.row for line in lines] == ROWS
    assert not any(line.problem for line in lines)
    assert lines[-1].position <= size_of(tmp_path / name)
    assert [file.name for file in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_could_not_be_finished_does_not_appear(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("what was there before")
    with pytest.raises(RuntimeError, match="on purpose"), RowWriter(tmp_path / name, COLUMNS) as writer:
        writer.write(ROWS[0])
        raise RuntimeError("on purpose")
    assert [file.read_text() for file in tmp_path.iterdir()] == ["what was there before"]


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_file_holds_no_rows(tmp_path: Path, name: str) -> None:
    with RowWriter(tmp_path / name, COLUMNS):
        pass
    assert list(read_rows(tmp_path / name)) == []


def test_text_that_no_reader_would_take_is_mended(tmp_path: Path) -> None:
    with RowWriter(tmp_path / "rows.jsonl", {"text": str}) as writer:
        writer.write({"text": "a\ud800b"})
    assert json.loads((tmp_path / "rows.jsonl").read_text("utf-8")) == {"text": "a\ufffdb"}


def test_bad_lines_come_out_with_their_number_and_reason(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b'\xef\xbb\xbf{"a": 1}\n\n{"a": \n"\xff"\n[1]\ntrue\n' + b"[" * 100_000 + b'\n{"a": 2}')
    found = [(line.number, line.row, line.problem) for line in read_rows(file)]
    assert [row for _, row, _ in found] == [{"a": 1}, None, None, None, None, None, {"a": 2}]
    assert [number for number, _, _ in found] == [1, 3, 4, 5, 6, 7, 8]
    reasons = [problem for _, row, problem in found if row is None]
    expected = ["not JSON (Expecting value", "not UTF-8", "a JSON list", "a JSON bool", "nested too deeply"]
    for reason, words in zip(reasons, expected, strict=True):
        assert words in reason


def test_items_of_an_array_longer_than_what_is_read_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_files, "_CHUNK_CHARS", 16)
    rows: list[dict[str, Any]] = [{"text": "word " * n, "deep": {"list": [n, [n]]}} for n in range(20)]
    (tmp_path / "rows.json").write_text(f" {json.dumps(rows, indent=1)}\n")
    assert [line.row for line in read_rows(tmp_path / "rows.json")] == rows


def test_an_array_that_breaks_off_gives_what_came_before(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text('[{"a": 1}, 7, {"a": 2}, {"a": ')
    found = [(line.number, line.row) for line in read_rows(tmp_path / "rows.json")]
    assert found == [(1, {"a": 1}), (2, None), (3, {"a": 2}), (4, None)]
    (tmp_path / "deep.json").write_text('[{"a": 1}, ' + "[" * 100_000)
    assert [line.row for line in read_rows(tmp_path / "deep.json")] == [{"a": 1}, None]


def test_damaged_files_are_named(tmp_path: Path) -> None:
    whole = gzip.compress(b'{"a": 1}\n' * 10_000)
    (tmp_path / "rows.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UnreadableFile, match=r"rows\.jsonl\.gz is damaged"):
        list(read_rows(tmp_path / "rows.jsonl.gz"))
    (tmp_path / "rows.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(UnreadableFile, match=r"rows\.parquet is damaged or no Parquet file"):
        list(read_rows(tmp_path / "rows.parquet"))
    with pytest.raises(ValueError, match=r"'rows\.csv'; expected a name that ends in \.jsonl"):
        kind_of_file(tmp_path / "rows.csv")
