"""Makes docs/gallery.md and its pictures: what the default weights do with various rain, failures included.

    python scripts/gallery.py

The scenes are photographs that scikit-image brings, in the public domain; figures are of what is shown.
Run it again after new weights.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image

import derain
from derain.checkpoints.cards import card_of
from derain.data.synthesis import make_pair
from derain.data.synthesis.presets import (
    BLURRED_DROPS,
    COLUMNS,
    DROPS,
    HEAVY,
    LIGHT,
    REAL,
    SOFT_DROPS,
    WISPS,
    RainKind,
)
from derain.data.synthesis.weather import ORDINARY, Weather
from derain.evaluation.levels import Array
from derain.pictures import Picture, write_picture

ROOT = Path(__file__).resolve().parents[1]
PAGE, PICTURES = ROOT / "docs" / "gallery.md", ROOT / "docs" / "pictures"
CELL = (320, 220)  # width and height of a picture
GAP = 6
PARTS = {
    "rocket": np.s_[100:320, 180:500],
    "coffee": np.s_[60:280, 150:470],
    "chelsea": np.s_[20:240, 70:390],
}
HEAD = """# Gallery

Made by `scripts/gallery.py` with the default weights ({title}), failures included.
From left to right: rainy, restored, ground truth. The rain was made by `derain synth` on photographs
that come with scikit-image (a cat, a cup of coffee, a rocket; all CC0), which the network was not trained
on. The percentage is the share of the rainy picture's squared error that was removed; the words follow
from it.
"""
WORDS = ((0.75, "Mostly gone"), (0.3, "Partly gone"), (0.05, "Hardly touched"), (-1e9, "Not removed"))


@dataclass(frozen=True)
class Show:
    """One row: a kind of rain on a scene.

    Attributes:
        name: of the file.
        title: of the row.
        scene: a key of `PARTS`, and a function of `skimage.data`.
        rain: None for no rain.
        weather: changes to it.
        on_its_side: the scene is turned before it rains, and turned back.
        seed: another number gives other rain.
    """

    name: str
    title: str
    scene: str
    rain: RainKind | None
    weather: Weather = ORDINARY
    on_its_side: bool = False
    seed: int = 3


BRIGHT = Weather(brightness=(1.6, 1.6))
SLANTED = Weather((35, 35), (1.5, 1.5), (1.5, 1.5))
CLOSE = Weather(density=(3, 3), brightness=(2, 2))
SHOWS = (
    Show("fine", "Fine streaks (`light`)", "rocket", LIGHT[0], BRIGHT),
    Show("slanted", "Fine streaks from the side", "chelsea", LIGHT[0], SLANTED),
    Show("shower", "A dense shower (`heavy`)", "coffee", HEAVY[0]),
    Show("lines", "Sharp bright lines (`heavy`)", "chelsea", HEAVY[1]),
    Show("real", "Streaks, mist, noise and JPEG (`real`)", "rocket", REAL[2]),
    Show(
        "columns",
        "Water close to the lens (`near`)",
        "coffee",
        RainKind(near=(COLUMNS, WISPS)),
        CLOSE,
        seed=6,
    ),
    Show("drops", "Drops on the glass (`drops`)", "chelsea", DROPS[1], seed=4),
    Show("soft", "Water out of focus (`near`)", "rocket", RainKind(near=(SOFT_DROPS,))),
    Show("blurred", "Drops on glass out of focus (`drops`)", "coffee", BLURRED_DROPS, seed=4),
    Show("sideways", "Rain that falls sideways", "rocket", LIGHT[0], BRIGHT, on_its_side=True),
    Show("dry", "No rain at all", "coffee", None),
)


def main() -> None:
    restore = derain.load(device="cpu")
    assert restore.checkpoint is not None
    rows = [HEAD.format(title=card_of(restore.checkpoint.path).title.replace("`", ""))]
    for show in SHOWS:
        rainy, clean = pair(
            show, np.ascontiguousarray(getattr(skimage.data, show.scene)()[PARTS[show.scene]])
        )
        restored = restore(rainy)
        write_picture(PICTURES / f"gallery-{show.name}.jpg", Picture(beside(rainy, restored, clean)), 82)
        rows += [
            f"## {show.title}\n",
            f"{verdict(rainy, restored, clean)}\n",
            f"![{show.title}: rainy, restored, truth](pictures/gallery-{show.name}.jpg)\n",
        ]
    PAGE.write_text("\n".join(rows), "utf-8")


def pair(show: Show, scene: Array) -> tuple[Array, Array]:
    """The rainy picture of a scene and its truth."""
    if show.rain is None:
        return scene, scene
    kinds = show.weather.applied_to((replace(show.rain, scene=None),))  # the sample is the scene
    turned = np.rot90(scene) if show.on_its_side else scene
    found = make_pair(np.random.default_rng(show.seed), np.ascontiguousarray(turned), kinds)
    rainy, clean = (np.rot90(p, -1) if show.on_its_side else p for p in found)
    return np.ascontiguousarray(rainy), np.ascontiguousarray(clean)


def verdict(rainy: Array, restored: Array, clean: Array) -> str:
    """What became of the rain, in a sentence."""
    psnr = derain.score(restored, clean, "matlab_y_uint8").mean["psnr"]
    before, after = (float(np.square(p.astype(float) - clean).mean()) for p in (rainy, restored))
    if before == 0:
        return (
            f"A dry picture should stay as it is: {psnr:.1f} dB between input and result (`matlab_y_uint8`)."
        )
    gone = 1 - after / before
    word = next(word for least, word in WORDS if gone >= least)
    score = derain.score(rainy, clean, "matlab_y_uint8").mean["psnr"]
    return f"**{word}** ({100 * gone:z.0f} %): {score:.1f} dB before, {psnr:.1f} dB after (`matlab_y_uint8`)."


def beside(*pictures: Array) -> Array:
    """Pictures of one size from left to right on white."""
    width, height = CELL
    sheet = Image.new("RGB", (len(pictures) * (width + GAP) - GAP, height), "white")
    for number, picture in enumerate(pictures):
        sheet.paste(Image.fromarray(picture), (number * (width + GAP), 0))
    return np.asarray(sheet)


if __name__ == "__main__":
    main()
