"""The store of jobs, with a clock that the tests move."""

from __future__ import annotations

import math
import threading
from contextlib import suppress
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from derain.errors import UsageError
from derain.pictures import EXTENSIONS
from derain.pictures.kinds import VIDEO_KINDS
from derain.serve.jobs import ServerJob, Store
from derain.serve.limits import IN_WORDS, Limits, Refused
from derain.serve.uploads import Upload, kind_and_suffix, safe_folder, safe_name


def add(store: Store) -> ServerJob:
    with store.receiving() as folder:
        (folder / "rainy.png").write_bytes(bytes(100))
        return store.add(folder, Upload("picture", "a.png", folder / "rainy.png", (1, 1)), "spanet")


def test_a_job_lives_as_long_as_it_is_said(tmp_path: Path) -> None:
    now = 0.0
    store = Store(tmp_path, Limits(keep_seconds=60), lambda: now)
    first, second = add(store), add(store)
    now = 1000.0
    assert store.get(first.id).state == "waiting"  # one that waits is not over
    taken = store.take()
    assert taken is not None
    assert taken.id == first.id
    assert store.settle(taken, "done", "") is not None
    assert store.stored == 200
    now = 1059.9
    assert store.get(first.id).state == "done"
    now = 1060.0
    with pytest.raises(Refused, match="deleted"):
        store.get(first.id)
    assert [path.name for path in tmp_path.iterdir()] == [second.id]


def test_a_running_job_that_is_deleted_keeps_its_files_until_it_stops(tmp_path: Path) -> None:
    store = Store(tmp_path, Limits())
    add(store)
    taken = store.take()
    assert taken is not None
    told: list[int] = []
    with store.following(lambda: told.append(1)):
        store.delete(taken.id)
    assert told
    assert not store.holds(taken.id)
    assert taken.upload.source.exists()
    assert store.settle(taken, "done", "") is None
    assert not list(tmp_path.iterdir())


def test_followers_are_told_while_the_store_is_free(tmp_path: Path) -> None:
    """For each kind of change; another thread can use the store meanwhile."""
    store = Store(tmp_path, Limits())
    seen: list[int] = []

    def tell() -> None:
        look = threading.Thread(target=lambda: seen.append(store.waiting), daemon=True)
        look.start()
        look.join(20)
        assert not look.is_alive(), "the store is locked"

    with store.following(tell):
        job = add(store)
        assert seen == [1]
        assert store.take() is not None
        store.change(job.id, fraction=0.5)
        store.settle(job, "done", "")
        store.finish(job.id, None)
        store.delete(job.id)
        assert seen == [1, 0, 0, 0, 0, 0]


def test_an_upload_that_fails_leaves_nothing_and_its_place_is_free(tmp_path: Path) -> None:
    store = Store(tmp_path, Limits(waiting=1))
    for _ in range(3):
        with suppress(ZeroDivisionError), store.receiving() as folder:
            (folder / "half").touch()
            raise ZeroDivisionError
        assert not list(tmp_path.iterdir())
    with store.receiving(), pytest.raises(Refused) as full, store.receiving():
        pass
    assert full.value.status == 429
    add(store)
    with pytest.raises(Refused), store.receiving():
        pass
    assert len(list(tmp_path.iterdir())) == 1


def test_limits_are_positive() -> None:
    for wrong, said in (
        ({"upload_bytes": -2_000_000}, "the limit for one upload is -2 MB; give a positive number."),
        ({"keep_seconds": 0}, "the limit for keeping a result is 0 minutes; give a positive number."),
        ({"waiting": -1}, "the limit for the queue is -1 pictures and clips; give a positive number."),
        ({"pixels": 0}, "the limit for one picture or frame is 0 megapixels; give a positive number."),
        ({"job_seconds": math.nan}, "the limit for the work on one picture or clip is nan s; give"),
    ):
        with pytest.raises(UsageError, match=f"^{said}"):
            Limits(**wrong)
    assert IN_WORDS.keys() == {field.name for field in fields(Limits)}


def test_ids_cannot_be_guessed(tmp_path: Path) -> None:
    ids = {add(Store(tmp_path, Limits())).id for _ in range(50)}
    assert len(ids) == 50
    assert all(len(one) >= 22 for one in ids)


@given(st.text(max_size=300))
def test_any_name_becomes_a_plain_file_name(name: str) -> None:
    safe = safe_name(name, ".png")
    assert safe == Path(safe).name
    assert safe.endswith(".png")
    assert 5 <= len(safe.encode()) <= 204
    assert safe.isprintable()
    assert not set(safe) & set('<>:"/\\|?*')
    assert safe_name(safe, ".png") == safe


@given(st.text(max_size=400))
def test_any_path_becomes_folders_that_lead_nowhere_else(path: str) -> None:
    safe = safe_folder(path)
    assert not safe.startswith("/")
    assert len(safe) <= 300
    parts = safe.split("/") if safe else []
    assert all(part.strip(" .") and not set(part) & set('<>:"\\|?*') for part in parts)
    assert safe_folder("a/2019.08/ x") == "a/2019.08/x"


@given(st.binary(min_size=0, max_size=64), st.text(max_size=8))
def test_any_content_gives_a_known_extension_or_is_refused(head: bytes, suffix: str) -> None:
    with suppress(Refused):
        kind, extension = kind_and_suffix(head, suffix)
        assert kind in ("picture", "clip")
        assert extension.lower() in (*EXTENSIONS, *VIDEO_KINDS)
