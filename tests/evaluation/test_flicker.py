"""Flicker of clips, against second implementations in plain Python, and on clips whose flicker is known."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest

from derain import DerainError
from derain.evaluation import protocol
from derain.evaluation.flicker import flicker_static, flicker_truth, flicker_warped, movement
from derain.evaluation.scoring import plan_scoring, score_files
from derain.pictures import Picture, write_picture


def luma(picture: np.ndarray) -> list[list[float]]:
    return [[(299 * int(r) + 587 * int(g) + 114 * int(b)) / 1000 for r, g, b in row] for row in picture]


def frames(count: int, height: int = 12, width: int = 14, seed: int = 0) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8))


def scene(shift: float, height: int = 64, width: int = 80) -> np.ndarray:
    """Smooth texture, moved to the right by `shift` pixels."""
    random = np.random.default_rng(5)
    large = cv2.resize(random.integers(0, 256, (24, 40, 3)).astype(np.float32), (320, 192))
    moved = np.float32([[1, 0, shift - 60], [0, 1, -40]])
    return cv2.warpAffine(large, moved, (width, height), flags=cv2.INTER_CUBIC).clip(0, 255).astype(np.uint8)


def test_with_truth_equals_the_definition() -> None:
    restored, previous, clean, previous_clean = frames(4)
    o, p, t, u = map(luma, (restored, previous, clean, previous_clean))
    changes = [
        abs((o[y][x] - t[y][x]) - (p[y][x] - u[y][x])) for y in range(len(o)) for x in range(len(o[0]))
    ]
    found = flicker_truth(restored, previous, clean, previous_clean)
    assert found == pytest.approx(math.fsum(changes) / len(changes), abs=1e-9)


def test_static_equals_the_definition() -> None:
    restored, previous = frames(2)
    o, p = luma(restored), luma(previous)
    changes = [abs(o[y][x] - p[y][x]) for y in range(len(o)) for x in range(len(o[0]))]
    found = flicker_static(restored / 255, previous)
    assert found == pytest.approx(math.fsum(changes) / len(changes), abs=1e-9)


def test_warped_equals_the_definition() -> None:
    """The search for movement is OpenCV's; what is done with it is written out here."""
    now, before = scene(3.4), scene(0)
    noise = np.random.default_rng(1).integers(0, 9, (2, *now.shape), dtype=np.uint8)
    restored, previous = now // 2 + noise[0], before // 2 + noise[1]
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    a, b = (
        np.array([[(4899 * r + 9617 * g + 1868 * b + 8192) >> 14 for r, g, b in row] for row in x.tolist()])
        for x in (now, before)
    )
    a, b = a.astype(np.uint8), b.astype(np.uint8)
    there, back = search.calc(a, b, None), search.calc(b, a, None)
    height, width = a.shape

    def at(plane, x: float, y: float) -> float:
        x, y = min(max(x, 0), width - 1), min(max(y, 0), height - 1)
        left, top = min(int(x), width - 2), min(int(y), height - 2)
        r, d = x - left, y - top
        upper = float(plane[top][left]) * (1 - r) + float(plane[top][left + 1]) * r
        lower = float(plane[top + 1][left]) * (1 - r) + float(plane[top + 1][left + 1]) * r
        return upper * (1 - d) + lower * d

    o, p, changes = luma(restored), luma(previous), []
    for y in range(height):
        for x in range(width):
            dx, dy = (float(v) for v in there[y, x])
            miss = math.hypot(dx + at(back[..., 0], x + dx, y + dy), dy + at(back[..., 1], x + dx, y + dy))
            if 0 <= x + dx <= width - 1 and 0 <= y + dy <= height - 1 and miss <= 1:
                changes.append(abs(o[y][x] - at(p, x + dx, y + dy)))
    assert len(changes) > 0.6 * height * width
    found = flicker_warped(restored, previous, now, before)
    assert found == pytest.approx(math.fsum(changes) / len(changes), abs=1e-9)


def test_a_moving_camera_is_no_flicker() -> None:
    now, before = scene(4), scene(0)
    flow, is_known = movement(*(cv2.cvtColor(x, cv2.COLOR_RGB2GRAY) for x in (now, before)))
    assert np.median(flow[is_known][:, 0]) == pytest.approx(-4, abs=0.2)
    assert flicker_static(now, before) > 5
    assert flicker_warped(now, before, now, before) < 1
    assert flicker_truth(now, before, now, before) == 0
    flash = np.clip(now.astype(int) + 10, 0, 255).astype(np.uint8)
    assert flicker_warped(flash, before, now, before) == pytest.approx(10, abs=1)
    assert flicker_truth(flash, before, now, before) == pytest.approx(10, abs=0.5)


def test_folders_are_clips(tmp_path: Path) -> None:
    restored, clean = frames(4, seed=1), frames(4, seed=2)
    for i in range(4):
        clip = "a" if i < 3 else "b"  # the fourth picture is of another clip
        write_picture(tmp_path / "dry" / clip / f"{i}.png", Picture(restored[i]))
        write_picture(tmp_path / "clean" / clip / f"{i}.png", Picture(clean[i]))
    items = plan_scoring(tmp_path / "dry", tmp_path / "clean", ["flicker_truth", "rgb_psnr"])
    flicker, psnr = score_files(items, ["flicker_truth", "rgb_psnr"]).sets
    assert [p.name for p in flicker.pictures] == ["a/1.png", "a/2.png"]
    assert psnr.count == 4
    assert flicker.pictures[1].values == {
        "flicker": flicker_truth(restored[2], restored[1], clean[2], clean[1])
    }
    with pytest.raises(DerainError, match="give a video or a folder of frames"):
        plan_scoring(tmp_path / "dry/a/0.png", None, ["flicker_static"])
    with pytest.raises(DerainError, match="only one picture"):
        score_files(plan_scoring(tmp_path / "dry/b", None, ["flicker_static"]), ["flicker_static"])


def test_refusals() -> None:
    a, b = frames(2)
    with pytest.raises(DerainError, match="the frame is 14x12 and the one before it 13x12"):
        flicker_static(a, b[:, 1:])
    with pytest.raises(DerainError, match="needs 32 pixels a side"):
        flicker_warped(a, b, a, b)
    with pytest.raises(DerainError, match="compares with the restored frame before it"):
        protocol("flicker_static")(a)
