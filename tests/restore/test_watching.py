"""A folder that fills: slow copies, renames, changes; time passes as the tests say."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import derain
from derain.errors import UsageError
from derain.restore.jobs import Outcome
from derain.restore.run import PictureOptions
from derain.restore.watching import SETTLED, SETTLED_EMPTY, Arrivals, watch


@pytest.fixture
def restore() -> derain.Derainer:
    torch.manual_seed(0)
    network = derain.create_network("everyday", widths=(8, 12), encoder=(1, 1), decoder=(1,))
    torch.nn.init.normal_(network.head.weight, std=0.05)
    return derain.Derainer(network)


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (32, 48, 3), dtype=np.uint8))


def test_a_slow_copy_is_complete_only_when_it_stands_still(tmp_path: Path) -> None:
    arrivals, file = Arrivals(tmp_path), tmp_path / "a.jpg"
    assert arrivals.complete(0) == []
    file.write_bytes(b"")
    assert arrivals.complete(1) == arrivals.complete(50) == []  # opened, and nothing written yet
    for second in range(51, 60):
        with file.open("ab") as copy:
            copy.write(bytes(100))
        assert arrivals.complete(second) == []
    assert arrivals.complete(59 + SETTLED - 0.1) == []
    assert arrivals.complete(59 + SETTLED) == [file]
    assert arrivals.complete(100) == []  # handed out once
    file.write_bytes(bytes(10))
    assert arrivals.complete(101) == []
    assert arrivals.complete(104) == [file]  # another content


def test_unfinished_names_wait_for_their_renaming(tmp_path: Path) -> None:
    arrivals = Arrivals(tmp_path, tmp_path / "dry")
    (tmp_path / "sub").mkdir()
    (tmp_path / "dry").mkdir()
    for name in ("a.jpg.part", ".hidden.jpg", "b.crdownload", "sub/c.tmp", "dry/a.jpg"):
        (tmp_path / name).write_bytes(b"x")
    assert arrivals.complete(0) == arrivals.complete(10) == []
    (tmp_path / "sub/c.tmp").rename(tmp_path / "sub/c.jpg")
    (tmp_path / "a.jpg.part").rename(tmp_path / "a.jpg")
    assert arrivals.complete(11) == []
    assert arrivals.complete(13) == [tmp_path / "a.jpg", tmp_path / "sub/c.jpg"]
    (tmp_path / "a-derained.jpg").write_bytes(b"a result beside its source")
    assert arrivals.complete(14) == arrivals.complete(24) == []


def test_empty_and_dangling_files_are_reported_after_a_while(tmp_path: Path) -> None:
    arrivals = Arrivals(tmp_path)
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "link.png").symlink_to(tmp_path / "nowhere.png")
    assert arrivals.complete(0) == arrivals.complete(SETTLED_EMPTY - 1) == []
    assert arrivals.complete(SETTLED_EMPTY) == [tmp_path / "empty.jpg", tmp_path / "link.png"]
    picture(0).save(tmp_path / "nowhere.png")
    picture(1).save(tmp_path / "empty.jpg")
    assert arrivals.complete(61) == []
    assert len(arrivals.complete(61 + SETTLED)) == 3


def test_results_in_the_watched_folder_itself_are_refused(tmp_path: Path, restore: derain.Derainer) -> None:
    with pytest.raises(UsageError, match="is the watched folder itself"):
        next(watch(restore, tmp_path, tmp_path / "sub" / ".."))
    inner = tmp_path / "in"
    inner.mkdir()
    (inner / "a.jpg").write_bytes(b"x")
    arrivals = Arrivals(inner, tmp_path)  # results above the watched folder leave nothing out
    assert arrivals.complete(0) == []
    assert arrivals.complete(SETTLED) == [inner / "a.jpg"]


class Script:
    """Steps that happen one after the other while the watcher waits; then it ends."""

    def __init__(self, steps: Iterator[Callable[[], object]]) -> None:
        self.now, self._steps = 0.0, steps

    def clock(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds
        step = next(self._steps, None)
        if step is None:
            raise KeyboardInterrupt
        step()


def watched(
    restore: derain.Derainer, folder: Path, *steps: Callable[[], object], **options: object
) -> list[Outcome]:
    script, found = Script(iter(steps)), list[Outcome]()
    with contextlib.suppress(KeyboardInterrupt):
        found.extend(watch(restore, folder, clock=script.clock, wait=script.wait, **options))
    return found


def nothing() -> None:
    """Time passes."""


def test_what_arrives_is_restored_whole_and_once(tmp_path: Path, restore: derain.Derainer) -> None:
    folder, dry = tmp_path / "in", tmp_path / "in-derained"
    folder.mkdir()
    picture(1).save(folder / "first.png")
    (folder / "notes.txt").write_text("no picture")
    picture(2).save(tmp_path / "late.png")
    content = (tmp_path / "late.png").read_bytes()
    late = folder / "sub" / "late.png"

    def half() -> None:
        late.parent.mkdir()
        late.write_bytes(content[: len(content) // 2])

    def rest() -> None:
        with late.open("ab") as copy:
            copy.write(content[len(content) // 2 :])

    steps = (nothing, nothing, half, nothing, rest, nothing, nothing, nothing, nothing)
    found = watched(restore, folder, *steps)
    assert [(o.status, o.job.target) for o in found] == [
        ("restored", dry / "first.png"),
        ("restored", dry / "sub" / "late.png"),
    ]
    expected = restore(np.asarray(picture(2)))
    assert np.array_equal(np.asarray(Image.open(dry / "sub" / "late.png")), expected)
    again = watched(restore, folder, nothing, nothing, nothing)
    assert [o.status for o in again] == ["skipped", "skipped"]


def test_pictures_of_one_name_do_not_replace_each_other(tmp_path: Path, restore: derain.Derainer) -> None:
    folder, dry = tmp_path / "in", tmp_path / "dry"
    folder.mkdir()
    picture(1).save(folder / "a.bmp")
    steps = (nothing, nothing, nothing, lambda: picture(2).save(folder / "a.png"), *[nothing] * 4)
    found = watched(restore, folder, *steps, output=dry, suffix=".png")
    assert [o.job.target for o in found] == [dry / "a.png", dry / "a.png.png"]
    for number, outcome in enumerate(found, 1):
        expected = restore(np.asarray(picture(number)))
        assert np.array_equal(np.asarray(Image.open(outcome.job.target)), expected)


def test_a_copy_that_stalled_is_made_good_when_it_is_complete(
    tmp_path: Path, restore: derain.Derainer
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    picture(1).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    (folder / "a.png").write_bytes(content[:1000])
    steps = (*[nothing] * 4, lambda: (folder / "a.png").write_bytes(content), *[nothing] * 4)
    found = watched(restore, folder, *steps, pictures=PictureOptions(compare=True))
    assert [o.status for o in found] == ["failed", "restored"]
    assert (tmp_path / "in-derained" / "compare" / "a.png.jpg").exists()


def test_a_source_that_changes_is_restored_anew(tmp_path: Path, restore: derain.Derainer) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    picture(1).save(folder / "a.png")
    steps = (*[nothing] * 3, lambda: picture(2).save(folder / "a.png"), *[nothing] * 4)
    found = watched(restore, folder, *steps, output=tmp_path / "out")
    assert [o.status for o in found] == ["restored", "restored"]
    expected = restore(np.asarray(picture(2)))
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / "a.png")), expected)


def test_a_folder_that_goes_ends_it(tmp_path: Path, restore: derain.Derainer) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    script = Script(iter([folder.rmdir]))
    with pytest.raises(UsageError, match="is not a folder, or is gone"):
        list(watch(restore, folder, clock=script.clock, wait=script.wait))
