"""Files under the protocols: what is refused by name, and what is noted."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from derain import DerainError, UsageError
from derain.evaluation import PROTOCOLS, matlab_y_uint8
from derain.evaluation.scoring import plan_scoring, score_files
from derain.pictures import Picture, write_picture

RANDOM = np.random.default_rng(4)


def pixels(height: int, width: int, channels: int = 3, kind: type = np.uint8) -> np.ndarray:
    return RANDOM.integers(0, np.iinfo(kind).max + 1, (height, width, channels), kind)


def write(path: Path, *shape: int, kind: type = np.uint8, alpha: bool = False) -> Path:
    picture = Picture(pixels(*shape, kind=kind), alpha=pixels(*shape[:2], 1, kind)[..., 0] if alpha else None)
    write_picture(path, picture)
    return path


def scored(restored: Path, clean: Path | None, *protocols: str, **options: bool):
    return score_files(plan_scoring(restored, clean, protocols), protocols, **options)


def test_one_pass_gives_what_each_protocol_gives_alone(tmp_path: Path) -> None:
    for i in (1, 2, 10):
        write(tmp_path / "a" / f"{i}.png", 20, 24, 3)
        write(tmp_path / "b" / f"{i}.png", 20, 24, 3)
    names = [p.name for p in PROTOCOLS.values() if p.needs_truth]
    together = scored(tmp_path / "a", tmp_path / "b", *names)
    assert [s.protocol for s in together.sets] == names
    assert [p.name for p in together.sets[0].pictures] == ["1.png", "2.png", "10.png"]
    for found in together.sets:
        (alone,) = scored(tmp_path / "a", tmp_path / "b", found.protocol).sets
        assert alone == found
    assert together.notes == ()
    single = scored(tmp_path / "a/2.png", tmp_path / "b/2.png", "matlab_y_uint8").sets[0]
    assert single.pictures[0] == together.sets[0].pictures[1]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (lambda p: write(p, 20, 25, 3), r"2.png and .*clean/2.png: .* 25x20 and the clean one 24x20"),
        (lambda p: write(p, 20, 24, 3, kind=np.uint16), r"restored/2.png: has 16 bits"),
        (lambda p: p.write_bytes(b""), r"restored/2.png: the file is empty"),
        (lambda p: p.write_text("rain"), r"restored/2.png: not a picture"),
        (lambda p: p.write_bytes(p.read_bytes()[:400]), r"restored/2.png: a PNG file that is damaged"),
    ],
)
def test_one_bad_file_is_named_and_the_others_are_scored(bad, message: str, tmp_path: Path) -> None:
    for i in (1, 2, 3):
        for side in ("restored", "clean"):
            write(tmp_path / side / f"{i}.png", 20, 24, 3)
    bad(tmp_path / "restored/2.png")
    (found,) = scored(tmp_path / "restored", tmp_path / "clean", "matlab_y_uint8").sets
    assert [p.name for p in found.pictures] == ["1.png", "3.png"]
    assert re.search(message, "; ".join(found.failed))


@pytest.mark.parametrize(
    ("protocol", "side"),
    [("matlab_y_uint8", 11), ("skimage_rgb", 7), ("raindrop_y", 8), ("niqe_stable", 96)],
)
def test_too_small_pictures_are_named(protocol: str, side: int, tmp_path: Path) -> None:
    a, b = (write(tmp_path / f"{name}.png", side - 1, 200, 3) for name in "ab")
    with pytest.raises(DerainError, match=f"a.png.*needs {side} pixels a side"):
        scored(a, b if PROTOCOLS[protocol].needs_truth else None, protocol)


def test_alpha_is_left_out_with_a_note(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a.png", 20, 24, 3, alpha=True), write(tmp_path / "b.png", 20, 24, 3)
    assert scored(a, b, "matlab_y_uint8").notes == (f"{a}: its alpha is left out of the score.",)


def test_grey_against_colour_is_noted(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a.png", 20, 24, 1), write(tmp_path / "b.png", 20, 24, 3)
    assert scored(a, b, "matlab_y_double").notes == (
        f"{a}: is grey, its partner is not; taken as three equal channels.",
    )
    with pytest.raises(DerainError, match=r"a.png and .*a.png: matlab_y_double is defined for colour"):
        scored(a, a, "matlab_y_double")


def test_crop_to_common_takes_the_centres(tmp_path: Path) -> None:
    clean = pixels(24, 30)
    write_picture(tmp_path / "a.png", Picture(clean[2:-2, 3:-3]))
    write_picture(tmp_path / "b.png", Picture(clean))
    found = scored(tmp_path / "a.png", tmp_path / "b.png", "matlab_y_uint8", crop_to_common=True)
    assert found.sets[0].infinite == 1
    with pytest.raises(DerainError, match="24x20 and the clean one 30x24"):
        scored(tmp_path / "a.png", tmp_path / "b.png", "matlab_y_uint8")


def test_read_by_content_not_by_name(tmp_path: Path) -> None:
    """Published sets hold JPEG files named .png."""
    write(tmp_path / "a.jpg", 20, 24, 3).rename(tmp_path / "a.png")
    write(tmp_path / "b.png", 20, 24, 3)
    assert scored(tmp_path / "a.png", tmp_path / "b.png", "matlab_y_uint8").sets[0].count == 1


def test_requests_that_make_no_sense(tmp_path: Path) -> None:
    a = write(tmp_path / "a" / "1.png", 20, 24, 3)
    for arguments, message in (
        ((a, None, ["matlab_y_uint8"]), "compares with clean pictures"),
        ((a, a, ["niqe_stable"]), "need no clean pictures"),
        ((a, a, []), "no protocol is named"),
        ((a, a, ["psnr"]), "unknown protocol 'psnr'"),
        ((a, tmp_path / "a", ["rgb_psnr"]), "one is a folder and the other a file"),
        ((a, tmp_path / "none.png", ["rgb_psnr"]), "none.png: no such file"),
        ((tmp_path / "none", None, ["niqe_stable"]), "none"),
    ):
        with pytest.raises((UsageError, DerainError), match=message):
            score_files(plan_scoring(*arguments), arguments[2])


def test_a_picture_scores_the_same_from_file_and_memory(tmp_path: Path) -> None:
    a, b = pixels(20, 24), pixels(20, 24)
    for name, array in (("a", a), ("b", b)):
        write_picture(tmp_path / f"{name}.png", Picture(array))
    values = scored(tmp_path / "a.png", tmp_path / "b.png", "matlab_y_uint8").sets[0].pictures[0].values
    assert values == matlab_y_uint8(a, b)._asdict()


def test_what_cannot_be_scored_is_told_and_the_rest_is_scored(tmp_path: Path) -> None:
    for name in ("1", "2", "broken"):
        write(tmp_path / "dry" / f"{name}.png", 200, 200, 3)
        write(tmp_path / "clean" / f"{name}.png", 200, 200, 3)
    broken, flat = tmp_path / "dry" / "broken.png", tmp_path / "dry" / "flat.png"
    broken.write_bytes(broken.read_bytes()[:300])
    write_picture(flat, Picture(np.full((200, 200, 3), 7, np.uint8)))
    write(tmp_path / "clean" / "flat.png", 200, 200, 3)
    (niqe,) = scored(tmp_path / "dry", None, "niqe_stable").sets
    assert [p.name for p in niqe.pictures] == ["1.png", "2.png"]
    assert [message.split(": ")[0] for message in niqe.failed] == [str(broken), str(flat)]
    assert niqe.to_json()["failed"] == list(niqe.failed)
    (psnr,) = scored(tmp_path / "dry", tmp_path / "clean", "rgb_psnr").sets
    assert [p.name for p in psnr.pictures] == ["1.png", "2.png", "flat.png"]
    assert len(psnr.failed) == 1
    with pytest.raises(DerainError, match=r"flat\.png: the picture has too little texture"):
        scored(flat, None, "niqe_stable")
