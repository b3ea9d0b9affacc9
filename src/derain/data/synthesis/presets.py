"""Named kinds of rain, and the function that adds one to a picture.

`light` and `heavy` resemble the public sets Rain200L/Rain100L and Rain200H, `ddn` and `did` those
of Fu et al. (2017) and Zhang and Patel (2018), `real` photographs of real rain, and `drops` photographs
through wet glass; `mixed` is all of these. `short` resembles the rain that video editors draw. `falling`, on
which the bundled SPANet was trained, is rain without drops on the glass, mostly light, and now and then none,
so that dry pictures are left unchanged. `near` is rain within a few metres of the lens, and `dry` none at
all. `everyday`, on which the everyday network was first trained, mixes most of these.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from derain.data.synthesis.camera import CameraRanges, photograph, to_levels
from derain.data.synthesis.drops import DropRanges, add_drops
from derain.data.synthesis.mixing import Mixing, mix
from derain.data.synthesis.near import NearRanges, add_near_rain
from derain.data.synthesis.pixels import FloatArray
from derain.data.synthesis.scene import SceneRanges, expose, set_scene
from derain.data.synthesis.streaks import StreakRanges, streak_layer
from derain.data.synthesis.veil import VeilRanges, add_veil
from derain.errors import refuse_unknown


@dataclass(frozen=True)
class RainKind:
    """One kind of rain: everything between the scene and the file.

    Attributes:
        scene: what both pictures of a pair go through: a dull day and a camera.
        veil: mist, added before the streaks.
        streaks: ranges of layers that are added up.
        mixing: how streaks are combined with the picture; one way is drawn for each picture.
        near: rain close to the camera, one kind after the other.
        drops: drops on the glass.
        camera: noise and JPEG on the rainy picture alone.
        share: how often it is drawn, relative to the other kinds of a preset.
    """

    streaks: tuple[StreakRanges, ...] = ()
    mixing: tuple[Mixing, ...] = ("additive",)
    near: tuple[NearRanges, ...] = ()
    veil: VeilRanges | None = None
    drops: DropRanges | None = None
    camera: CameraRanges | None = None
    scene: SceneRanges | None = None
    share: int = 1


def shared(share: int, kinds: tuple[RainKind, ...]) -> tuple[RainKind, ...]:
    """Kinds of rain that are drawn `share` times as often."""
    return tuple(replace(rain, share=share * rain.share) for rain in kinds)


FINE = StreakRanges(
    angle=(-35, 35),
    sheets=(3, 6),
    length=(25, 130),
    width=(1.3, 2.3),
    coverage=(0.12, 0.65),
    brightness=(0.04, 0.12),
    tail=(0.25, 0.7),
    gusts=(0.0, 0.6),
    glint=(0.2, 1.4),
    floor=(0.0, 0.03),
)
LINES = StreakRanges(
    angle=(-30, 30),
    directions=(1, 2),
    sheets=(1, 2),
    length=(40, 120),
    width=(1.2, 1.8),
    coverage=(0.25, 0.9),
    brightness=(0.2, 0.45),
    tail=(0.1, 0.4),
    gusts=(0.3, 1.0),
    glint=(0.0, 0.3),
    sharp=True,
)
SHOWER = StreakRanges(
    angle=(-30, 30),
    directions=(1, 3),
    sheets=(2, 4),
    length=(30, 120),
    width=(1.3, 2.6),
    coverage=(0.4, 1.4),
    brightness=(0.05, 0.2),
    tail=(0.25, 0.6),
    gusts=(0.2, 0.8),
    glint=(0.0, 0.7),
)
CURTAINS = StreakRanges(
    angle=(-15, 15),
    spread=(0.0, 2.0),
    length=(60, 200),
    width=(2.0, 7.0),
    coverage=(0.6, 2.5),
    brightness=(0.02, 0.09),
    tail=(0.2, 0.5),
    gusts=(0.3, 1.0),
    glint=(0.0, 0.5),
)
# So many curtains of rain, one behind the other, that they mostly brighten everything.
SHEETS = replace(CURTAINS, coverage=(2.5, 12.0), brightness=(0.006, 0.025), width=(2.0, 9.0))
DRIZZLE = StreakRanges(
    angle=(-45, 45),
    spread=(0.0, 2.0),
    sheets=(2, 4),
    length=(7, 40),
    width=(1.2, 2.0),
    coverage=(1.0, 4.0),
    brightness=(0.02, 0.06),
    tail=(0.3, 0.7),
    gusts=(0.0, 0.3),
    glint=(0.0, 1.0),
)
# Noise smeared along the fall, as photo editors make rain: so many drops overlap that little of it shows
# as streaks and most of it as a brighter background.
SMEAR = StreakRanges(
    angle=(-45, 45),
    spread=(0.0, 2.0),
    sheets=(1, 2),
    length=(15, 60),
    width=(1.3, 3.0),
    coverage=(4.0, 14.0),
    brightness=(0.006, 0.022),
    tail=(0.2, 0.5),
    gusts=(0.0, 0.25),
    glint=(0.0, 0.5),
)
DASHES = StreakRanges(
    angle=(-45, 45),
    spread=(0.0, 3.0),
    sheets=(2, 4),
    length=(12, 45),
    width=(1.8, 3.2),
    coverage=(0.03, 0.2),
    brightness=(0.06, 0.2),
    tail=(0.2, 0.5),
    gusts=(0.0, 0.3),
    glint=(0.0, 0.3),
)
# In linear light, 0.05 on a dark background already looks like 0.22.
NEAR = StreakRanges(
    angle=(-35, 35),
    spread=(0.0, 3.0),
    sheets=(2, 4),
    length=(10, 80),
    width=(1.3, 4.0),
    coverage=(0.03, 0.3),
    brightness=(0.02, 0.12),
    tail=(0.3, 0.8),
    gusts=(0.0, 0.4),
    glint=(0.0, 1.0),
)
# Rain within a few metres of the lens; lengths are for frames some 500 pixels high.
LIT_LINES = NearRanges(
    "lines", count=(2, 40), length=(12, 110), blur=(0.45, 1.3), opacity=(0.08, 0.9), angle=(-40, 40)
)
SHORT_LINES = NearRanges(
    "lines", count=(5, 60), length=(5, 40), blur=(0.4, 0.8), opacity=(0.06, 0.7), angle=(-15, 15), tail=0.6
)
SOFT_LINES = NearRanges("lines", count=(0.5, 12), length=(6, 70), blur=(1.2, 7.0), opacity=(0.1, 0.8))
COLUMNS = NearRanges(
    "bundles", count=(0.2, 3), length=(40, 220), blur=(0.6, 5.0), opacity=(0.15, 1.0), spread=(1.5, 14.0),
    angle=(-8, 8),
)  # fmt: skip
# Water out of focus: a drop within arm's length, or water running off a gutter, before a dark background.
SOFT_COLUMNS = NearRanges(
    "lines", count=(0.1, 2), length=(60, 350), blur=(2.5, 18), opacity=(0.1, 0.9), angle=(-8, 8)
)
SOFT_DROPS = NearRanges(
    "lines", count=(1.5, 12), length=(8, 45), blur=(2.5, 7), opacity=(0.15, 0.8), angle=(-12, 12)
)
# Streaks as wide as the drop, with visible edges: near and in focus, or a jet from a roof.
RIBBONS = NearRanges(
    "ribbons", count=(0.1, 4), length=(20, 300), width=(2, 14), blur=(0.7, 3.5), opacity=(0.08, 0.9),
    angle=(-12, 12),
)  # fmt: skip
SPECKS = NearRanges("spots", count=(3, 70), length=(1.5, 9), blur=(0.4, 0.9), opacity=(0.08, 0.9), tail=0.6)
BEADS = NearRanges(
    "beads", count=(0.5, 6), length=(40, 160), blur=(0.8, 2.5), opacity=(0.2, 1.0), angle=(-12, 12)
)
SPLASHES = NearRanges(
    "splashes", count=(0.3, 4), length=(2, 9), blur=(0.5, 1.4), opacity=(0.15, 0.9), spread=(3, 20)
)
SPOTS = NearRanges("spots", count=(1, 25), length=(1, 5), blur=(0.7, 4.0), opacity=(0.1, 0.8))
WISPS = NearRanges("lines", count=(4, 60), length=(15, 90), blur=(0.5, 1.5), opacity=(0.02, 0.15), tail=0.6)
# As video editors draw rain: upright, evenly bright from end to end, equally sharp near and far.
DRAWN_LINES = NearRanges(
    "lines", count=(4, 60), length=(8, 45), blur=(0.4, 0.6), opacity=(0.08, 0.5), angle=(-12, 12),
    tail=0.5, adds=True,
)  # fmt: skip
DRAWN_BARS = NearRanges(
    "lines", count=(0.3, 6), length=(20, 90), width=(1.5, 5), blur=(0.4, 0.7), opacity=(0.12, 0.7),
    angle=(-12, 12), tail=0.5, adds=True,
)  # fmt: skip
# The same when they hide what is behind them, in the colour of what is around.
PAINTED_LINES = NearRanges(
    "lines", count=(0.5, 20), length=(8, 60), width=(1, 1.7), blur=(0.4, 0.6), opacity=(0.12, 2.5),
    angle=(-5, 5), tail=0.7, tinted=True,
)  # fmt: skip
PAINTED_BARS = replace(PAINTED_LINES, count=(0.05, 0.8), length=(25, 110), width=(2, 5), opacity=(0.3, 3.0))
MIST = VeilRanges()
THIN_MIST = VeilRanges(near=(0.0, 0.05), far=(0.0, 0.25))
CAMERA = CameraRanges()

LIGHT = (RainKind((FINE,)),)
HEAVY = (RainKind((SHOWER,)), RainKind((LINES,)), RainKind((LINES, SHOWER)))
DDN = (
    RainKind((CURTAINS,)),
    RainKind((SHEETS,)),
    RainKind((DRIZZLE,)),
    RainKind((DASHES,)),
    RainKind((CURTAINS, DRIZZLE)),
    RainKind((SMEAR,), ("additive", "screen")),
)
DID = (RainKind((SHOWER,), ("additive", "screen")), RainKind((DRIZZLE,)), RainKind((DRIZZLE, SHOWER)))
REAL = (
    RainKind((NEAR,), ("linear", "screen"), camera=CAMERA),
    RainKind((NEAR, DRIZZLE), ("linear", "screen"), veil=THIN_MIST, camera=CAMERA),
    RainKind((NEAR, FINE), ("linear",), veil=MIST, camera=CAMERA),
)
DULL = SceneRanges()
BRIGHT = SceneRanges(gamma=(0.8, 1.3), gain=(0.75, 1.0), softened=0.2)
# Rain out of focus is learnt last, so it has the largest shares.
NEAR_RAIN = (
    RainKind(near=(LIT_LINES,), scene=DULL, share=5),
    RainKind(near=(LIT_LINES, WISPS), veil=THIN_MIST, scene=DULL),
    RainKind(near=(SHORT_LINES,), scene=BRIGHT, share=4),
    RainKind(near=(SHORT_LINES, LIT_LINES), scene=BRIGHT, share=2),
    RainKind(near=(SHORT_LINES, SPECKS), scene=DULL),
    RainKind(near=(COLUMNS, WISPS), scene=DULL, share=2),
    RainKind(near=(SOFT_LINES, WISPS), scene=DULL, share=2),
    RainKind(near=(SOFT_LINES, SPOTS), scene=DULL),
    RainKind(near=(SOFT_COLUMNS,), scene=DULL, share=3),
    RainKind(near=(SOFT_COLUMNS, LIT_LINES), scene=DULL),
    RainKind(near=(SOFT_DROPS,), scene=DULL, share=3),
    RainKind(near=(SOFT_DROPS, WISPS), scene=DULL),
    RainKind(near=(RIBBONS,), scene=DULL, share=3),
    RainKind(near=(RIBBONS, SPECKS), scene=DULL),
    RainKind(near=(SPECKS,), scene=DULL, share=2),
    RainKind(near=(SPECKS, LIT_LINES, SOFT_LINES), scene=DULL),
    RainKind(near=(BEADS, LIT_LINES), scene=DULL),
    RainKind(near=(SPLASHES, LIT_LINES), scene=DULL),
    RainKind(streaks=(NEAR,), mixing=("linear", "screen"), near=(SOFT_LINES,), scene=DULL),
    RainKind(scene=DULL, share=2),
)
# Glass so close to the lens that its drops are soft discs of light.
BLURRED_DROPS = RainKind(
    drops=DropRanges(density=(0.3, 3.0), radius=(10, 45), defocus=(0.3, 0.8), glow=(0.0, 0.35)),
    share=3,
)
DROPS = (
    RainKind(drops=DropRanges()),
    RainKind(drops=DropRanges(density=(0.2, 1.0), radius=(8.0, 40.0))),
    BLURRED_DROPS,
)

# The noise is in both pictures of a pair, so that a network learns to leave it alone.
REAL_SCENES = tuple(replace(rain, camera=None, scene=DULL) for rain in REAL)

PRESETS: dict[str, tuple[RainKind, ...]] = {
    "light": LIGHT,
    "heavy": HEAVY,
    "ddn": DDN,
    "did": DID,
    "short": (
        RainKind(near=(DRAWN_LINES, DRAWN_BARS)),
        RainKind(near=(DRAWN_LINES, DRAWN_BARS), scene=BRIGHT),
        RainKind(near=(PAINTED_LINES, PAINTED_LINES, PAINTED_BARS, PAINTED_BARS)),
        RainKind(near=(DRAWN_LINES, PAINTED_LINES, PAINTED_LINES, PAINTED_BARS), scene=BRIGHT),
    ),
    "real": REAL,
    "drops": DROPS,
    "near": NEAR_RAIN,
    "dry": (RainKind(), RainKind(scene=DULL)),
    "falling": (*shared(14, LIGHT), RainKind(), HEAVY[0], *DDN[2:-1], *shared(3, DDN[-1:]), REAL[0]),
    "everyday": (
        *shared(10, LIGHT),
        *shared(2, HEAVY[:1]),
        *HEAVY[1:],
        *DDN[:-1],
        *shared(2, DDN[-1:]),
        DID[0],
        *REAL_SCENES,
        *NEAR_RAIN,
        *DROPS,
        RainKind(),
    ),
    "mixed": (*LIGHT, *HEAVY, *DDN, *DID, *REAL, *DROPS),
}


def preset(name: str) -> tuple[RainKind, ...]:
    """The kinds of rain of a preset. Raises `UsageError` for an unknown name."""
    refuse_unknown("rain preset", name, PRESETS)
    return PRESETS[name]


def make_pair(
    rng: np.random.Generator, clean: NDArray[np.uint8], kinds: tuple[RainKind, ...]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Adds rain of one of the kinds, drawn at random, to a picture.

    Args:
        rng: the source of all randomness; the same state gives the same pair.
        clean: (H, W, 3) RGB uint8.
        kinds: the kinds to draw from, by their shares.

    Returns:
        The rainy picture and the clean one that belongs to it, (H, W, 3) RGB uint8; the latter is `clean`
        unless the kind sets a scene.
    """
    rain = _drawn(rng, kinds)
    dry: FloatArray = clean.astype(np.float32) / np.float32(255)
    if rain.scene:
        dry = set_scene(rng, dry, rain.scene)
    picture = dry
    if rain.veil:
        picture = add_veil(rng, picture, rain.veil)
    if rain.streaks:
        height, width = clean.shape[:2]
        layer = sum(streak_layer(rng, height, width, ranges) for ranges in rain.streaks)
        picture = mix(picture, np.asarray(layer, np.float32), rain.mixing[rng.integers(len(rain.mixing))])
    for ranges in rain.near:
        picture = add_near_rain(rng, picture, ranges)
    if rain.drops:
        picture = add_drops(rng, picture, rain.drops)
    if rain.scene:
        picture, dry = expose(rng, (picture, dry), rain.scene)
    rainy = photograph(rng, picture, rain.camera) if rain.camera else to_levels(picture)
    return rainy, to_levels(dry) if rain.scene else clean


def _drawn(rng: np.random.Generator, kinds: tuple[RainKind, ...]) -> RainKind:
    """One of the kinds, drawn by their shares."""
    ends = np.cumsum([rain.share for rain in kinds])
    return kinds[int(np.searchsorted(ends, rng.integers(ends[-1]), "right"))]
