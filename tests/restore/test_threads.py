"""How many CPU threads are used."""

from __future__ import annotations

from types import SimpleNamespace

import psutil
import pytest
import torch

from derain.restore import memory
from derain.restore.threads import divided_threads, fastest_threads, idle_cores, pictures_at_once

START = {"user": 10.0, "nice": 2.0, "system": 3.0, "idle": 50.0, "iowait": 1.0, "guest": 4.0}


@pytest.mark.parametrize(
    ("spent", "free"),
    [
        ({"idle": 0.2}, 2),  # as short as it is, on two cores
        ({"idle": 0.1, "user": 0.1}, 1),
        ({"user": 0.2}, 1),  # one thread is always used
        ({"nice": 0.1, "idle": 0.1}, 2),
        ({"iowait": 0.1, "nice": 0.1}, 2),
        ({"idle": 0.1, "user": 0.05, "system": 0.05}, 1),
        ({"user": 0.2, "guest": 0.2}, 1),  # a part of "user"
        ({}, 1),
    ],
)
def test_idle_cores_are_counted(spent: dict[str, float], free: int) -> None:
    after = {name: seconds + spent.get(name, 0.0) for name, seconds in START.items()}
    assert idle_cores(START, after, own=0, cores=2, most=2) == free


def test_no_more_threads_than_asked_for() -> None:
    assert idle_cores({"idle": 0.0}, {"idle": 6.4}, own=0, cores=64, most=8) == 8


def test_what_this_process_spends_is_not_lost_to_others() -> None:
    assert (
        idle_cores({"idle": 0.0, "user": 0.0}, {"idle": 0.13, "user": 0.07}, own=0.07, cores=2, most=2) == 2
    )


def test_low_priority_is_free_whoever_has_it() -> None:
    spent = {"idle": 0.0, "user": 0.1, "nice": 0.1}
    assert idle_cores(dict.fromkeys(spent, 0.0), spent, own=0, cores=2, most=2) == 1


def test_the_user_chooses_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert fastest_threads(7) == 7


def test_pictures_at_once_are_bounded_by_threads_pictures_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    available = 100 * memory.CPU_BUDGET
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=available))
    assert [pictures_at_once(8, 200), pictures_at_once(8, 3), pictures_at_once(64, 200)] == [8, 3, 50]
    available = memory.CPU_BUDGET
    assert pictures_at_once(8, 200) == 1


def test_threads_are_shared_out_and_given_back() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(5)
    try:
        with divided_threads(2):
            assert torch.get_num_threads() == 2
        assert torch.get_num_threads() == 5
    finally:
        torch.set_num_threads(before)
