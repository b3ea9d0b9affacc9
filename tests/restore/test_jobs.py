"""Which file becomes which, and that the error of one file stays with it."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from clips import moving_scene, write_clip
from derain.errors import DerainError, UsageError
from derain.pictures import Picture, encode_picture, read_picture, write_picture
from derain.restore import Derainer, PictureOptions, Settings, VideoOptions, load, restore_files
from derain.restore import jobs as jobs_room
from derain.restore.jobs import Job, Made, carry_out_in_stages, plan
from derain.restore.run import restore_all

JPEG = b"\xff\xd8\xff\xe0"
HEIC = b"\0\0\0\x18ftypheic"


@pytest.fixture(scope="module")
def derainer(weights: Path) -> Derainer:
    return load(weights, device="cpu")


def noise(height: int = 20, width: int = 30) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def files(folder: Path, **heads: bytes) -> None:
    for name, head in heads.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(head)


def targets(inputs: list[Path], output: Path) -> dict[str, str]:
    return {job.source.name: job.target.relative_to(output).as_posix() for job in plan(inputs, output).jobs}


def test_names_are_kept_where_they_can_be_written(tmp_path: Path) -> None:
    pytest.importorskip("pillow_heif", reason="the extra 'formats' is not installed")
    rainy, dry = tmp_path / "rainy", tmp_path / "dry"
    names = {
        "a.JPG": JPEG,
        "b.jfif": JPEG,
        "DSC0001": JPEG,
        "trip 3.5": JPEG,
        "IMG_1.HEIC": HEIC,
        "IMG_2.HEIC": HEIC,
        "IMG_2.png": b"",
        "cam.MTS": (b"G" + bytes(187)) * 5,
        "film.mp4": b"\0\0\0\x18ftypisom",
        "film.dat": b"\0\0\0\x18ftypisom",
    }
    files(rainy, **names)
    assert targets([rainy], dry) == {
        "a.JPG": "a.JPG",
        "b.jfif": "b.jpg",
        "DSC0001": "DSC0001.jpg",
        "trip 3.5": "trip 3.5.jpg",
        "IMG_1.HEIC": "IMG_1.png",
        "IMG_2.HEIC": "IMG_2.HEIC.png",
        "IMG_2.png": "IMG_2.png",
        "cam.MTS": "cam.mkv",
        "film.mp4": "film.mp4",
        "film.dat": "film.dat.mp4",
    }
    notes = {job.source.name: job.note for job in plan([rainy], dry).jobs}
    assert (notes["a.JPG"], notes["b.jfif"]) == ("", "written as b.jpg")
    (beside,) = plan([rainy / "b.jfif"]).jobs
    assert beside.target == rainy / "b-derained.jpg"


def test_files_whose_results_would_have_one_name_keep_their_extensions(tmp_path: Path) -> None:
    pytest.importorskip("pillow_heif", reason="the extra 'formats' is not installed")
    files(tmp_path / "in", **{"a.jfif": JPEG, "a.jpe": JPEG, "b.heic": HEIC, "b.hif": HEIC, "c.jfif": JPEG})
    assert targets([tmp_path / "in"], tmp_path / "out") == {
        "a.jfif": "a.jfif.jpg",
        "a.jpe": "a.jpe.jpg",
        "b.heic": "b.heic.png",
        "b.hif": "b.hif.png",
        "c.jfif": "c.jpg",
    }


@pytest.mark.parametrize("name", ["out.heic", "out.CR2", "out.mp4", "out.jfif"])
def test_a_result_of_another_kind_is_no_folder(name: str, tmp_path: Path) -> None:
    files(tmp_path, **{"a.png": b""})
    with pytest.raises(UsageError, match=r"pictures are written as \.png"):
        plan([tmp_path / "a.png"], tmp_path / name)
    (tmp_path / name).mkdir()
    assert targets([tmp_path / "a.png"], tmp_path / name) == {"a.png": "a.png"}


def test_a_misspelt_kind_of_result_is_no_folder_and_a_date_is(tmp_path: Path) -> None:
    files(tmp_path, **{"a.png": b""})
    for name in ("out.jpgg", "out.pdf", "out.txt"):
        with pytest.raises(UsageError, match=r"written as \.png .* If it is to be a folder, make it first"):
            plan([tmp_path / "a.png"], tmp_path / name)
    for name in ("dry", "dry-2026.11"):
        assert targets([tmp_path / "a.png"], tmp_path / name) == {"a.png": "a.png"}


def test_results_in_the_input_folder_are_no_input(tmp_path: Path) -> None:
    files(tmp_path, **{"a.png": b"", "dry/a.png": b"", "dry/notes.txt": b"x"})
    assert targets([tmp_path], tmp_path / "dry") == {"a.png": "a.png"}
    assert plan([tmp_path], tmp_path / "dry").unread == ()


def test_results_beside_their_sources_are_no_input(tmp_path: Path) -> None:
    results = ("a-derained.jpg", "a-derained-preview.jpg")
    for name in ("a.jpg", *results, "a-preview.jpg", "sub/a-derained.png", "b-derained.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    planned = plan([tmp_path], tmp_path.parent / "dry")
    assert {job.name.as_posix() for job in planned.jobs} == {
        "a",
        "a-preview",
        "sub/a-derained",
        "b-derained",
    }
    assert {entry.source.name for entry in planned.unread} == set(results)
    named = plan([tmp_path / "a.jpg", tmp_path / "a-derained.jpg"], tmp_path.parent / "dry")
    assert len(named.jobs) == 2


def test_pictures_of_one_name_have_results_of_two_in_another_format(tmp_path: Path) -> None:
    files(tmp_path, **{"a.jpg": b"", "a.png": b"", "b.jpg": b""})
    planned = plan([tmp_path], tmp_path / "dry", suffix=".png").jobs
    assert [(job.target.name, job.note) for job in planned] == [
        ("a.jpg.png", "written as a.jpg.png"),
        ("a.png", ""),
        ("b.png", ""),
    ]
    beside = plan([tmp_path / "a.jpg", tmp_path / "a.png"], suffix=".png").jobs
    assert [job.target.name for job in beside] == ["a.jpg-derained.png", "a-derained.png"]
    assert len({job.companion("maps", ".png") for job in beside}) == 2
    files(tmp_path, **{job.target.name: b"" for job in beside})
    assert {entry.source for entry in plan([tmp_path], tmp_path / "dry").unread} == {j.target for j in beside}


def test_what_would_be_replaced_is_refused(tmp_path: Path) -> None:
    files(tmp_path, **{"a.png": b"", "b/a.png": b""})
    with pytest.raises(UsageError, match="are in the output folder"):
        plan([tmp_path], tmp_path)
    with pytest.raises(UsageError, match=r"would both be written as a\.png; restore them one"):
        plan([tmp_path / "a.png", tmp_path / "b" / "a.png"], tmp_path / "dry")
    files(tmp_path, **{"c.png": b""})
    with pytest.raises(UsageError, match=r"one\.png: is named like a file, but several results"):
        plan([tmp_path / "c.png", tmp_path / "a.png"], tmp_path / "one.png")
    with pytest.raises(UsageError, match="several results need a folder"):
        plan([tmp_path / "c.png", tmp_path / "a.png"], tmp_path / "a.png")


@pytest.mark.skipif(sys.platform == "win32", reason="names and pipes of POSIX")
def test_one_bad_file_of_any_kind_stops_nothing(derainer: Derainer, tmp_path: Path) -> None:
    rainy, dry = tmp_path / "rainy", tmp_path / "dry"
    rainy.mkdir()
    (rainy / "self.png").symlink_to("self.png")
    (rainy / "gone.png").symlink_to("nowhere/x.png")
    os.mkfifo(rainy / "pipe.png")
    for name in (
        b"\xff\xfe.png",
        b"\x1b[2J.png",
        b"new\nline.png",
        b"long" * 60 + b".png",
        b"a.mp4",
        b"b.avi",
    ):
        (rainy / os.fsdecode(name)).write_bytes(b"no picture")
    write_picture(rainy / "z.png", Picture(noise()))
    outcomes = list(restore_all(derainer, plan([rainy], dry).jobs))
    told = {os.fsencode(outcome.job.source.name): outcome for outcome in outcomes}
    assert len(outcomes) == 10
    assert told.pop(b"z.png").status == "restored"
    for name, outcome in told.items():
        assert outcome.status == "failed", name
        assert os.fsdecode(name) in outcome.note
    assert [path.name for path in dry.iterdir()] == ["z.png"]


def test_a_program_restores_pictures_and_clips_in_one_call(weights: Path, tmp_path: Path) -> None:
    rainy, dry = tmp_path / "rainy", tmp_path / "dry"
    write_picture(rainy / "a.png", Picture(noise()))
    (rainy / "photo").write_bytes(encode_picture(Picture(noise()), ".jpg"))
    write_clip(rainy / "sub" / "clip.mkv", list(moving_scene(4, 32, 48)))
    files(rainy, **{"notes.txt": b"hello", "scan.jp2": b"\xff\x4f\xff\x51"})
    seen = set()
    report = restore_files(
        [rainy],
        dry,
        model=weights,
        pictures=PictureOptions(maps=True, compare=True),
        progress=lambda job, done, total: seen.add((job.source.name, done, total)),
    )
    assert [outcome.status for outcome in report.outcomes] == ["restored"] * 3
    assert {(entry.source.name, entry.kind) for entry in report.unread} == {
        ("notes.txt", "TXT"), ("scan.jp2", "JP2")
    }  # fmt: skip
    assert not report.is_complete  # a picture was passed over
    (tmp_path / "texts").mkdir()
    (rainy / "notes.txt").rename(tmp_path / "texts" / "notes.txt")
    assert not restore_files([tmp_path / "texts"], dry, model=weights).is_complete  # nothing to restore
    (tmp_path / "texts" / "notes.txt").rename(rainy / "notes.txt")
    assert {("a.png", 1, 1), ("clip.mkv", 4, 4)} <= seen
    assert {path.relative_to(dry).as_posix() for path in dry.rglob("*.*")} == {
        "a.png", "photo.jpg", "sub/clip.mkv", "compare/a.jpg", "compare/photo.jpg", "maps/a-mask.png",
        "maps/photo-mask.png",
    }  # fmt: skip
    (rainy / "scan.jp2").unlink()
    again = restore_files([rainy], dry, model=weights)
    assert {outcome.status for outcome in again.outcomes} == {"skipped"}
    assert again.outcomes[0].note == "exists already, perhaps made with other settings."
    assert str(again.outcomes[0].remedy) == "To replace it, set overwrite=True."
    assert again.is_complete


def test_options_that_nothing_can_use_are_refused_before_the_work(weights: Path, tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png", Picture(noise()))
    with pytest.raises(UsageError, match="crf is for videos") as caught:
        restore_files([tmp_path / "a.png"], model=weights, videos=VideoOptions(crf=20))
    assert caught.value.remedy is not None
    assert caught.value.remedy.settings == {"crf": None}
    (tmp_path / "file").touch()
    with pytest.raises(DerainError, match="cannot be written to"):
        restore_files([tmp_path / "a.png"], tmp_path / "file" / "dry" / "a.png", model=weights)


def test_strength_goes_from_the_rainy_picture_to_beyond_the_restored_one(weights: Path) -> None:
    rainy = torch.from_numpy(noise()).permute(2, 0, 1)[None] / 255
    none, half, whole, more = (
        load(weights, device="cpu", strength=strength).restore(rainy).image
        for strength in (0.0, 0.5, 1.0, 1.5)
    )
    assert torch.equal(none, rainy)
    torch.testing.assert_close(half, (rainy + whole) / 2)
    torch.testing.assert_close(more, (rainy + 1.5 * (whole - rainy)).clamp(0, 1))
    assert torch.equal(whole, load(weights, device="cpu").restore(rainy).image)
    for wrong in (-0.1, 1.6, float("nan")):
        with pytest.raises(UsageError, match=r"from 0 to 1\.5"):
            load(weights, strength=wrong)


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("strength", "x", "strength 'x': give a number from 0 to 1.5."),
        ("strength", "0,7", "strength '0,7': give a number from 0 to 1.5, with a point: 0.7."),
        ("strength", None, "strength None: give a number from 0 to 1.5."),
        ("tile", "ten", "tile 'ten': give a positive number of pixels, or 0 for no tiles."),
        ("tile", 1.5, "tile 1.5: give a positive number of pixels, or 0 for no tiles."),
        ("overlap", "8", "overlap '8': give 0 or a positive number of pixels."),
    ],
)
def test_settings_of_another_type_are_refused_in_words(setting: str, value: object, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        Settings(**{setting: value})
    assert str(caught.value) == said


def test_a_picture_without_a_known_name_is_read_by_its_content(derainer: Derainer, tmp_path: Path) -> None:
    (tmp_path / "photo").write_bytes(encode_picture(Picture(noise()), ".png"))
    (outcome,) = restore_all(derainer, plan([tmp_path / "photo"], tmp_path / "dry").jobs)
    assert (outcome.status, outcome.note) == ("restored", "written as photo.png")
    assert read_picture(tmp_path / "dry" / "photo.png").size == (20, 30)


def some_jobs(folder: Path, count: int) -> list[Job]:
    return [Job(folder / f"{n}.png", folder / "dry" / f"{n}.png", folder, Path(str(n))) for n in range(count)]


def test_the_next_is_read_and_the_last_is_written_during_the_work(tmp_path: Path) -> None:
    jobs = some_jobs(tmp_path, 4)
    was_read, may_write = ([threading.Event() for _ in jobs] for _ in range(2))

    def read(job: Job) -> int:
        number = int(job.name.name)
        was_read[number].set()
        return number

    def work(job: Job, number: int) -> Callable[[], Made]:
        if job is not jobs[-1]:
            assert was_read[number + 1].wait(30)
        if number:
            may_write[number - 1].set()  # which it waits for
        return lambda: Made("written in time" if may_write[number].wait(30) else "late")

    may_write[-1].set()
    outcomes = carry_out_in_stages(jobs, read, work, {}, held=lambda number: 0)
    assert [(o.job, o.note) for o in outcomes] == [(job, "written in time") for job in jobs]


def test_several_are_worked_on_at_once_and_outcomes_keep_their_order(tmp_path: Path) -> None:
    jobs, together = some_jobs(tmp_path, 6), threading.Barrier(3)

    def work(_: Job, number: int) -> Callable[[], Made]:
        together.wait(30)
        return lambda: Made(f"{number}")

    outcomes = list(
        carry_out_in_stages(jobs, lambda job: int(job.name.name), work, {}, held=lambda _: 0, at_once=3)
    )
    assert [(o.job, o.note) for o in outcomes] == [(job, str(n)) for n, job in enumerate(jobs)]


def test_large_pictures_are_not_worked_on_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs_room, "MOST_HELD", 10)
    jobs, at_work, most = some_jobs(tmp_path, 6), list[Job](), list[int]()

    def work(job: Job, _: int) -> Callable[[], Made]:
        at_work.append(job)
        most.append(len(at_work))
        return lambda: at_work.remove(job) or Made()

    list(carry_out_in_stages(jobs, lambda job: 11, work, {}, held=lambda size: size, at_once=3))
    assert most == [1] * 6


def test_what_is_no_longer_wanted_is_told_to_stop(tmp_path: Path) -> None:
    jobs, stop, worked = some_jobs(tmp_path, 20), threading.Event(), list[Job]()

    def work(job: Job, _: None) -> Callable[[], Made]:
        worked.append(job)
        if job is not jobs[0]:
            assert stop.wait(30)
        return Made

    outcomes = carry_out_in_stages(jobs, lambda job: None, work, {}, held=lambda _: 0, at_once=2, stop=stop)
    assert next(outcomes).job is jobs[0]
    outcomes.close()
    assert len(worked) < 6


def test_pictures_at_once_are_those_one_by_one(derainer: Derainer, tmp_path: Path) -> None:
    for number in range(5):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 30 + 8 * number, 3), np.uint8)
        write_picture(tmp_path / "rainy" / f"{number}.png", Picture(pixels))
    before = torch.get_num_threads()
    try:
        for threads, name in ((1, "one"), (3, "three")):
            torch.set_num_threads(threads)
            outcomes = restore_all(derainer, plan([tmp_path / "rainy"], tmp_path / name).jobs)
            assert [o.status for o in outcomes] == ["restored"] * 5
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    for number in range(5):
        one, three = (read_picture(tmp_path / name / f"{number}.png").pixels for name in ("one", "three"))
        assert np.array_equal(one, three)


def test_large_pictures_are_worked_on_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs_room, "MOST_HELD", 10)
    jobs, steps = some_jobs(tmp_path, 3), list[str]()

    def read(job: Job) -> int:
        steps.append(f"read {job.name}")
        return 11

    def work(job: Job, _: int) -> Callable[[], Made]:
        steps.append(f"work {job.name}")
        return lambda: steps.append(f"write {job.name}") or Made()

    list(carry_out_in_stages(jobs, read, work, {}, held=lambda size: size))
    assert steps == [f"{step} {n}" for n in range(3) for step in ("read", "work", "write")]


def test_a_failing_stage_stops_nothing(tmp_path: Path) -> None:
    jobs = some_jobs(tmp_path, 4)

    def fails_at(number: int, job: Job) -> None:
        if job is jobs[number]:
            raise OSError(f"stage {number}")

    def work(job: Job, _: None) -> Callable[[], Made]:
        fails_at(1, job)
        return lambda: fails_at(2, job) or Made()

    outcomes = list(carry_out_in_stages(jobs, lambda job: fails_at(0, job), work, {}, held=lambda _: 0))
    assert [o.status for o in outcomes] == ["failed", "failed", "failed", "restored"]
    assert [f"stage {n}" in outcomes[n].note for n in range(3)] == [True] * 3
