"""Real rain without truth, against a second implementation that loops over windows."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from derain import DerainError
from derain.evaluation import protocol, real_rain
from derain.evaluation.scoring import plan_scoring, score_files
from derain.pictures import Picture, read_picture, write_picture


def reflected(index: int, length: int) -> int:
    """An index beyond the edge, mirrored about the first or last pixel."""
    while not 0 <= index < length:
        index = -index if index < 0 else 2 * (length - 1) - index
    return index


def by_hand(restored: np.ndarray, rainy: np.ndarray, wet: np.ndarray) -> dict[str, float]:
    """The definition, pixel by pixel in plain Python numbers."""
    height, width = wet.shape
    o, i = (
        [[(299 * int(r) + 587 * int(g) + 114 * int(b)) / 1000 for r, g, b in row] for row in picture]
        for picture in (restored, rainy)
    )

    def near(y: int, x: int) -> bool:
        rows, columns = range(max(0, y - 2), min(height, y + 3)), range(max(0, x - 2), min(width, x + 3))
        return any(wet[v, u] for v in rows for u in columns)

    dry = [[not near(y, x) for x in range(width)] for y in range(height)]
    contrasts: dict[str, list[float]] = {"o": [], "i": []}
    for y, x in zip(*np.nonzero(wet), strict=True):
        window = [
            (reflected(v, height), reflected(u, width))
            for v in range(y - 12, y + 13)
            for u in range(x - 12, x + 13)
        ]
        around = [(v, u) for v, u in window if dry[v][u]]
        if len(around) < 0.15 * 625:
            continue
        for name, luma in (("o", o), ("i", i)):
            background = math.fsum(luma[v][u] for v, u in around) / len(around)
            contrasts[name].append(luma[y][x] - background)
    changes = [o[y][x] - i[y][x] for y in range(height) for x in range(width) if dry[y][x]]
    gradients: dict[str, list[float]] = {"o": [], "i": []}
    for y in range(height - 1):
        for x in range(width - 1):
            if dry[y][x] and dry[y][x + 1] and dry[y + 1][x]:
                for name, luma in (("o", o), ("i", i)):
                    steps = luma[y][x + 1] - luma[y][x], luma[y + 1][x] - luma[y][x]
                    gradients[name].append(math.hypot(*steps))
    return {
        "removed": 1 - math.fsum(contrasts["o"]) / math.fsum(contrasts["i"]),
        "harm": math.fsum(map(abs, changes)) / len(changes),
        "detail": math.fsum(gradients["o"]) / math.fsum(gradients["i"]),
        "brightness": math.fsum(changes) / len(changes),
    }


def rain(height: int, width: int, seed: int, share: float = 0.01) -> tuple[np.ndarray, ...]:
    """A restored picture, a rainy one and the mask of streaks three pixels long, (H, W) bool."""
    random = np.random.default_rng(seed)
    clean = random.integers(0, 200, (height, width, 3))
    heads = random.random((height, width)) < share
    heads[height // 2, width // 2] = True
    wet = heads | np.roll(heads, 1, axis=0) | np.roll(heads, 2, axis=0)
    rainy = clean + 50 * wet[..., None]
    restored = clean + 10 * wet[..., None] + random.integers(-3, 4, clean.shape)
    return restored.clip(0, 255).astype(np.uint8), rainy.astype(np.uint8), wet


def bytes_of(wet: np.ndarray) -> np.ndarray:
    return wet.astype(np.uint8) * 255


@given(height=st.integers(13, 40), width=st.integers(13, 40), seed=st.integers(0, 999))
@settings(max_examples=8)
def test_equals_the_definition(height: int, width: int, seed: int) -> None:
    restored, rainy, wet = rain(height, width, seed)
    found = real_rain(restored, rainy, bytes_of(wet))
    assert found._asdict() == pytest.approx(by_hand(restored, rainy, wet), abs=1e-9)


def test_equals_the_definition_on_a_real_crop(shared: Path) -> None:
    rainy, mask = (
        read_picture(shared / f"data/spa_masks/{kind}/898.png").pixels for kind in ("rainy", "mask")
    )
    cut = (slice(100, 180), slice(200, 300))
    rainy, wet = rainy[cut], mask[cut][..., 0] >= 128
    restored = np.where(wet[..., None], rainy - rainy // 8, rainy).astype(np.uint8)
    assert real_rain(restored, rainy, bytes_of(wet))._asdict() == pytest.approx(
        by_hand(restored, rainy, wet), abs=1e-9
    )


def test_known_values() -> None:
    _, rainy, wet = rain(60, 80, 1)
    unchanged = real_rain(rainy, rainy, bytes_of(wet))
    assert unchanged == (0, 0, 1, 0)
    flat = np.full((60, 80, 3), 100, np.uint8)
    flat[10, ::2] = 110  # texture far from the rain
    streak = np.zeros((60, 80), bool)
    streak[40:45, 40] = True
    wetted, dried, hole = (flat.copy() for _ in range(3))
    wetted[streak], hole[streak] = 140, 60
    assert real_rain(dried, wetted, bytes_of(streak)).removed == pytest.approx(1)
    assert real_rain(hole, wetted, bytes_of(streak)).removed == pytest.approx(2)
    brighter = wetted + np.uint8(4)
    assert real_rain(brighter, wetted, bytes_of(streak)) == pytest.approx((0, 4, 1, 4))


def test_floats_and_masks_of_other_kinds() -> None:
    restored, rainy, wet = rain(40, 50, 2)
    expected = real_rain(restored, rainy, bytes_of(wet))
    colours = np.repeat(bytes_of(wet)[..., None], 3, axis=2)
    for mask in (wet.astype(np.float32), colours, bytes_of(wet)[..., None], bytes_of(wet) // 2 + 80):
        assert real_rain(restored / 255, rainy, mask) == expected
    assert real_rain(restored / 255 + 0.6 / 255, rainy, bytes_of(wet), quantise="floor") == expected


def test_refusals() -> None:
    restored, rainy, wet = rain(40, 50, 3)
    mask = bytes_of(wet)
    for reason, arguments in {
        "the rainy one 50x39": (restored, rainy[:39], mask),
        "the mask is 50x39 and the picture 50x40": (restored, rainy, mask[:39]),
        "marks no rain": (restored, rainy, np.zeros_like(mask)),
        "beside dry pixels": (restored, rainy, np.full_like(mask, 255)),
        "flat inside or outside": (restored, np.full_like(rainy, 80), mask),
        "so it is a picture and not a mask": (restored, rainy, rainy),
    }.items():
        with pytest.raises(DerainError, match=reason):
            real_rain(*arguments)


def test_folders_are_paired_by_name(tmp_path: Path) -> None:
    for i in (2, 10):
        restored, rainy, wet = rain(40, 50, i)
        for folder, pixels in (("dry", restored), ("rainy", rainy), ("mask", bytes_of(wet)[..., None])):
            write_picture(tmp_path / folder / f"{i}.png", Picture(pixels))
    folders = {"rainy": tmp_path / "rainy", "masks": tmp_path / "mask"}
    items = plan_scoring(tmp_path / "dry", None, ["real_rain"], **folders)
    (found,) = score_files(items, ["real_rain"]).sets
    for picture in found.pictures:
        restored, rainy, wet = rain(40, 50, int(Path(picture.name).stem))
        assert picture.values == real_rain(restored, rainy, bytes_of(wet))._asdict()
    with pytest.raises(DerainError, match="compares with rain masks; give them"):
        plan_scoring(tmp_path / "dry", None, ["real_rain"], rainy=tmp_path / "rainy")
    with pytest.raises(DerainError, match="rgb_psnr need no rain masks; leave out"):
        plan_scoring(tmp_path / "dry", tmp_path / "rainy", ["rgb_psnr"], masks=tmp_path / "mask")
    (tmp_path / "mask/2.png").unlink()
    with pytest.raises(DerainError, match=r"dry/2.png has no partner in .*mask"):
        plan_scoring(tmp_path / "dry", None, ["real_rain"], **folders)


def test_what_it_needs_is_asked_for() -> None:
    restored, rainy, _ = rain(40, 50, 4)
    with pytest.raises(DerainError, match="compares with a rain mask"):
        protocol("real_rain")(restored, rainy=rainy)
