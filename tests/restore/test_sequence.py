"""Folders whose pictures are the frames of a clip."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from torch import nn

import derain
from clips import moving_scene, write_clip
from command_line import derain_here
from derain.data.folders import read_rgb
from derain.errors import DerainError, UsageError
from derain.methods import create_network
from derain.pictures import read_picture
from derain.restore import Derainer, PictureOptions
from derain.restore.jobs import plan
from derain.restore.neighbours import Seen, corrected
from derain.restore.protecting import Protection
from derain.restore.run import restore_all
from derain.restore.watching import watch
from restore.test_neighbours import panned, scene, with_streaks

COUNT = 12


@pytest.fixture(scope="module")
def derainer() -> Derainer:
    network = create_network("everyday", widths=(8, 12), encoder=(1, 1), decoder=(1,)).eval()
    nn.init.normal_(network.head.weight, std=0.02)
    return derain.load(network, device="cpu", precision="float32")


@pytest.fixture
def frames() -> list[NDArray[np.uint8]]:
    return [with_streaks(frame, t) for t, frame in enumerate(panned(scene(width=240), count=COUNT))]


@pytest.fixture
def folder(tmp_path: Path, frames: list[NDArray[np.uint8]]) -> Path:
    """1.png to 12.png, whose alphabetical order is another."""
    for number, frame in enumerate(frames, 1):
        write(tmp_path / "frames" / f"{number}.png", frame)
    return tmp_path / "frames"


def write(path: Path, pixels: NDArray[np.uint8]) -> None:
    path.parent.mkdir(exist_ok=True)
    cv2.imwrite(str(path), pixels[..., ::-1] if pixels.ndim == 3 else pixels)


def outcomes(
    derainer: Derainer, folder: Path, protection: Path | None = None, **options: bool
) -> dict[str, str]:
    """{name: status} in the order of the outcomes; results are in `out`."""
    found = restore_all(
        derainer,
        plan([folder], folder.parent / "out").jobs,
        pictures=PictureOptions(sequence=True),
        protection=None if protection is None else Protection(protection),
        **options,
    )
    return {outcome.job.source.name: outcome.status for outcome in found}


def expected(derainer: Derainer, frames: list[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
    return list(corrected(Seen(frame, derainer(frame)) for frame in frames))


def test_frames_are_corrected_by_their_neighbours_in_the_order_of_their_numbers(
    derainer: Derainer, folder: Path, frames: list[NDArray[np.uint8]]
) -> None:
    found = outcomes(derainer, folder)
    assert list(found.items()) == [(f"{number}.png", "restored") for number in range(1, COUNT + 1)]
    wanted = expected(derainer, frames)
    assert any((frame != alone).any() for frame, alone in zip(wanted, map(derainer, frames), strict=True))
    for number, frame in enumerate(wanted, 1):
        np.testing.assert_array_equal(read_rgb(folder.parent / "out" / f"{number}.png"), frame)


def test_results_that_exist_are_kept_and_the_others_as_in_a_whole_run(
    derainer: Derainer, folder: Path
) -> None:
    outcomes(derainer, folder)
    results = folder.parent / "out"
    whole = {file.name: file.read_bytes() for file in results.iterdir()}
    (results / "7.png").unlink()
    (results / "12.png").unlink()
    found = outcomes(derainer, folder)
    assert [name for name, status in found.items() if status == "restored"] == ["7.png", "12.png"]
    assert len(found) == COUNT
    assert {file.name: file.read_bytes() for file in results.iterdir()} == whole
    assert set(outcomes(derainer, folder).values()) == {"skipped"}
    assert set(outcomes(derainer, folder, overwrite=True).values()) == {"restored"}


def test_a_broken_frame_is_left_out_and_another_size_begins_a_new_clip(
    derainer: Derainer, folder: Path, frames: list[NDArray[np.uint8]]
) -> None:
    (folder / "3.png").write_bytes((folder / "3.png").read_bytes()[:200])
    odd = frames[8][:-2]
    write(folder / "9.png", odd)
    write(folder / "0.png", frames[0][:32, :32])
    found = outcomes(derainer, folder)
    assert list(found) == [f"{number}.png" for number in range(COUNT + 1)]
    assert [name for name, status in found.items() if status == "failed"] == ["3.png"]
    wanted = expected(derainer, [frames[t - 1] for t in (1, 2, 4, 5, 6, 7, 8)])
    np.testing.assert_array_equal(read_rgb(folder.parent / "out" / "4.png"), wanted[2])
    np.testing.assert_array_equal(read_rgb(folder.parent / "out" / "9.png"), derainer(odd))
    wanted = expected(derainer, frames[9:])
    np.testing.assert_array_equal(read_rgb(folder.parent / "out" / "10.png"), wanted[0])


def test_a_result_that_exists_is_no_failure(derainer: Derainer, folder: Path) -> None:
    outcomes(derainer, folder)
    (folder.parent / "out" / "2.png").unlink()
    (folder / "1.png").write_bytes(b"no picture")
    assert set(outcomes(derainer, folder).items()) == {
        (f"{number}.png", "restored" if number == 2 else "skipped") for number in range(1, COUNT + 1)
    }


def test_a_frame_that_the_network_fails_at_ends_only_its_clip(
    derainer: Derainer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, restore = 0, Derainer._restore_once

    def fails_once(self: Derainer, *given: Any, **options: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen == 5:
            raise DerainError("the network gave values that are not finite.")
        return restore(self, *given, **options)

    monkeypatch.setattr(Derainer, "_restore_once", fails_once)
    found = outcomes(derainer, folder)
    assert list(found) == [f"{number}.png" for number in range(1, COUNT + 1)]
    assert [name for name, status in found.items() if status == "failed"] == ["5.png"]


def test_videos_and_frames_share_a_run(derainer: Derainer, folder: Path) -> None:
    """A folder that cannot be written to fails only what belongs into it."""
    (folder / "clips").mkdir()
    write_clip(folder / "clips" / "a.mkv", list(moving_scene(3, 32, 48)))
    out = folder.parent / "out"
    out.mkdir()
    (out / "clips").write_text("a file")
    found = outcomes(derainer, folder)
    assert found.pop("a.mkv") == "failed"
    assert set(found.values()) == {"restored"}
    (out / "clips").unlink()
    assert outcomes(derainer, folder)["a.mkv"] == "restored"


def test_a_mask_of_another_size_is_refused_before_the_work(derainer: Derainer, folder: Path) -> None:
    write(folder.parent / "mask.png", np.zeros((20, 20), np.uint8))
    assert set(outcomes(derainer, folder, folder.parent / "mask.png").values()) == {"failed"}
    assert not (folder.parent / "out").exists()


def test_each_folder_is_a_clip_and_what_pictures_carry_is_kept(
    derainer: Derainer, folder: Path, frames: list[NDArray[np.uint8]]
) -> None:
    for number, frame in enumerate(frames, 1):
        grey = (257 * cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.uint16)) ^ 1
        (folder / "grey").mkdir(exist_ok=True)
        cv2.imwrite(str(folder / "grey" / f"{number}.png"), grey)
    assert set(outcomes(derainer, folder).values()) == {"restored"}
    result = read_picture(folder.parent / "out" / "grey" / "5.png")
    assert (result.bits, result.pixels.shape[2]) == (16, 1)
    np.testing.assert_array_equal(read_rgb(folder.parent / "out" / "5.png"), expected(derainer, frames)[4])


def test_white_in_a_mask_stays(derainer: Derainer, folder: Path, frames: list[NDArray[np.uint8]]) -> None:
    mask = np.zeros(frames[0].shape[:2], np.uint8)
    mask[:, :60] = 255
    write(folder.parent / "mask.png", mask)
    assert set(outcomes(derainer, folder, folder.parent / "mask.png").values()) == {"restored"}
    result, wanted = read_rgb(folder.parent / "out" / "6.png"), expected(derainer, frames)[5]
    np.testing.assert_array_equal(result[:, :60], frames[5][:, :60])
    np.testing.assert_array_equal(result[:, 90:], wanted[:, 90:])


def test_what_is_for_single_pictures_is_refused(derainer: Derainer, folder: Path) -> None:
    with pytest.raises(UsageError, match="maps and compare are for single pictures"):
        PictureOptions(sequence=True, maps=True, compare=True)
    with pytest.raises(UsageError, match="not as they arrive"):
        next(watch(derainer, folder, pictures=PictureOptions(sequence=True)))


def test_from_the_command_line(folder: Path) -> None:
    done = derain_here("run", folder, "-o", folder.parent / "dry", "--sequence", "--json")
    assert done.returncode == 0, done.stderr
    assert len(list((folder.parent / "dry").iterdir())) == COUNT
    refused = derain_here("run", folder, "-o", folder.parent / "dry", "--sequence", "--watch")
    assert refused.returncode == 2
    assert "--sequence" in refused.stderr
