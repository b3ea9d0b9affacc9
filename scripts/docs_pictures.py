"""Makes pictures of `docs/pictures/` from a sample, a photograph of scikit-image and the bundled weights.

    python scripts/docs_pictures.py

before-after.jpg: a part of a sample and what `derain run` makes of it.
presets.jpg: kinds of rain of `derain synth`, on one photograph.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image, ImageDraw, ImageFont

import derain
from derain.data.synthesis import make_pair, preset
from derain.pictures import Picture, read_picture, side_by_side, to_rgb8, write_picture

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "docs" / "pictures"
PART = np.s_[90:330, 150:510]  # of temple.jpg
CELL = (288, 192)  # width and height of one preset
COLUMNS = 3
KINDS = {
    "light": 3,
    "heavy": 3,
    "ddn": 3,
    "did": 3,
    "real": 3,
    "drops": 6,
}  # and their seeds

restore = derain.load()
temple = to_rgb8(read_picture(ROOT / "samples" / "temple.jpg"))
write_picture(PICTURES / "before-after.jpg", Picture(side_by_side(temple[PART], restore(temple)[PART])), 85)

clean = np.asarray(Image.fromarray(skimage.data.chelsea()).resize(CELL, Image.Resampling.LANCZOS))
rows = -(-len(KINDS) // COLUMNS)
sheet = Image.new("RGB", (COLUMNS * CELL[0], rows * CELL[1]), "white")
draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(16)
for number, (name, seed) in enumerate(KINDS.items()):
    row, column = divmod(number, COLUMNS)
    left, top = column * CELL[0], row * CELL[1]
    rainy, _ = make_pair(np.random.default_rng(seed), clean, preset(name))
    sheet.paste(Image.fromarray(rainy), (left, top))
    draw.text((left + 8, top + 6), name, "white", font, stroke_width=2, stroke_fill="black")
write_picture(PICTURES / "presets.jpg", Picture(np.asarray(sheet)), 85)
