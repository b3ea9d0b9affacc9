"""Lines that a killed process cut off harm no other."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from derain.errors import DerainError
from derain.records import append_records, read_records

RECORDS = st.lists(st.dictionaries(st.text(), st.integers() | st.text() | st.floats(allow_nan=False)))


@settings(max_examples=30)
@given(before=RECORDS, after=RECORDS.filter(bool), cut=st.integers(1, 40))
def test_a_torn_end_costs_its_own_line_only(
    tmp_path_factory: pytest.TempPathFactory,
    before: list[dict[str, object]],
    after: list[dict[str, object]],
    cut: int,
) -> None:
    path = tmp_path_factory.mktemp("records") / "log.jsonl"
    append_records(path, [*before, {"the last": "one, cut off while it was written"}])
    path.write_bytes(path.read_bytes()[:-cut])
    kept = [*before, {"the last": "one, cut off while it was written"}][: len(before) + (cut == 1)]
    assert read_records(path) == kept
    append_records(path, after)
    assert read_records(path) == kept + after


def test_what_is_not_a_record_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    assert read_records(path) == []
    path.write_bytes(b'{"a": 1}\n[1]\n\xff\xfe\n' + b"[" * 100_000 + b'\n{"a": 2}\n')
    assert read_records(path) == [{"a": 1}, {"a": 2}]


def test_a_folder_in_its_place_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(DerainError, match="cannot be read"):
        read_records(tmp_path)
    with pytest.raises(DerainError, match="cannot be written"):
        append_records(tmp_path, [{}])
