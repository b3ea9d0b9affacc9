"""Stochastic derained reference learning: a network learns from rainy pictures alone.

Peng, Li and Chen, IEEE TMM 2025 (`published`), and a quick form of it (`quick`). As published, a
fresh U-Net learns on one picture to map it to 50 drawn references in turn, by MSE and Adam. The
mean of the losses against all references differs from the loss against their mean by a constant
only, so `quick` learns from the mean at once, without the noise of the draws. Its reference is a
better one (`streaks.py`), its network starts at the identity, its result is averaged over the last
weights, and pixels without suspicion stay as they are.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from derain.errors import DerainError
from derain.methods.network import RainNetwork
from derain.methods.rain2avoid.backbones import UNet
from derain.methods.rain2avoid.ldgp import Bytes, rain_prior, refuse_too_small
from derain.methods.rain2avoid.sampling import References, sample_references
from derain.methods.rain2avoid.streaks import combined_reference, find_rain, rain_map_at

SEED = 3  # as published, but set anew for every network, so that order does not matter
WHOLE_PIXELS = 512 * 512  # larger pictures are learnt from crops and restored in tiles
LEAST_SIDE = 64  # padded to it, as BatchNorm needs more than one value per channel at the deepest level
TILE_OVERLAP = 128
NO_RAIN = 0.6  # levels of 8 bits that streaks add on average; less is seen in pictures without rain
SUSPECT = 0.5  # levels of 8 bits that a reference must differ by for its pixel to be suspected
PATIENCE = 100  # steps over which the loss must fall by 1 percent, or learning ends
TRAINED_SHARE = 0.1  # of the steps and of the learning rate, for networks that are trained already


@dataclass(frozen=True)
class Course:
    """How much to learn from: `steps` batches of `batch` square crops of side `crop`.

    Without `crop`, a batch is the whole picture.
    """

    steps: int
    batch: int = 1
    crop: int | None = None


@dataclass(frozen=True)
class Preset:
    """How to learn.

    Attributes:
        plain: as published: drawn references, a constant learning rate, the last weights, running
            statistics, and the network's output as it is. Otherwise as said at the top.
        backbone: the default network, by its name in the registry.
        alone, together: for one picture; for many.
        learning_rate: of Adam.
    """

    plain: bool
    backbone: str
    alone: Course
    together: Course
    learning_rate: float = 0.001


PRESETS = {
    "quick": Preset(False, "rain2avoid_unet-slim", Course(600, 4, 96), Course(2000, 8, 96)),
    "published": Preset(True, "rain2avoid_unet", Course(5000), Course(4000, 64, 64)),
}


@dataclass(frozen=True)
class Lesson:
    """What a rainy picture teaches without its clean version.

    Attributes:
        rainy: (1, 3, H, W) in [0, 1].
        rain_map: (H, W) uint8, the prior.
        light: levels of 8 bits that streaks add on average.
        draws: drawn references, for the published preset.
        mean: (1, 3, H, W) in [0, 1], the expected clean picture.
        suspected: (1, 1, H, W), whether a pixel may change.
    """

    rainy: Tensor
    rain_map: Bytes
    light: float
    draws: References | None
    mean: Tensor
    suspected: Tensor

    @property
    def warning(self) -> str:
        """What a user should know of this picture, or ""."""
        if not self.suspected.any():
            return "no rain found, the picture stays as it is"
        return "" if self.light >= NO_RAIN else "hardly any rain found; fine texture may suffer"


@dataclass(frozen=True)
class Learnt:
    """The outcome of learning.

    Attributes:
        network: on the CPU, in eval mode.
        ended: why learning ended: "steps", "time" or "settled" (the loss no longer fell).
        losses: of every step.
        seconds_to_restore: an estimate for all lessons together.
    """

    network: RainNetwork
    ended: str
    losses: list[float] = field(repr=False)
    seconds_to_restore: float

    @property
    def note(self) -> str:
        """What a user should know of how it ended, or ""."""
        return f"time was up after {len(self.losses)} steps" if self.ended == "time" else ""


@dataclass(frozen=True)
class Adapted:
    """A picture derained by what it taught, with everything made on the way.

    Attributes:
        image: (1, 3, H, W) in [0, 1].
        lesson: the references.
        learnt: the network, or None when there was nothing to learn.
        note: what a user should know, or "".
    """

    image: Tensor
    lesson: Lesson
    learnt: Learnt | None
    note: str


Progress = Callable[[int, int], None]


def silent(done: int, total: int) -> None:
    """Reports no progress."""


def adapt_one(
    rainy: Tensor,
    network: RainNetwork,
    preset: Preset,
    *,
    trained: bool = False,
    seconds: float | None = None,
    device: torch.device | str = "cpu",
    precision: torch.dtype = torch.float32,
    progress: Progress = silent,
) -> Adapted:
    """Learns from one picture and derains it.

    Args:
        rainy: (1, 3, H, W) in [0, 1].
        network: of the registry; changed in place.
        preset: how.
        trained: the network derains already, else it has fresh weights.
        seconds: for everything; learning ends early enough to apply what was learnt.
        device: to learn on.
        precision: to learn in; results are made in float32.
        progress: called with steps done and their number.

    Raises:
        DerainError: a side is shorter than 32 pixels, or the loss is no longer finite.
    """
    began = time.monotonic()
    lesson = prepare(rainy, preset, network.to(device) if trained else None, device)
    if not lesson.suspected.any():
        return Adapted(rainy, lesson, None, lesson.warning)
    if not trained and not preset.plain:
        start_at_identity(network)
    left = None if seconds is None else seconds - (time.monotonic() - began)
    learnt = learn(
        [lesson],
        network,
        preset,
        trained=trained,
        seconds=left,
        device=device,
        precision=precision,
        progress=progress,
    )
    notes = [note for note in (lesson.warning, learnt.note) if note]
    left = None if seconds is None else seconds - (time.monotonic() - began)
    if left is not None and (not learnt.losses or learnt.seconds_to_restore > 2 * max(left, 0)):
        notes.append("no time to apply the network: this is the reference without learning")
        return Adapted(lesson.mean, lesson, None, "; ".join(notes))
    return Adapted(restore(lesson, learnt.network, preset, device), lesson, learnt, "; ".join(notes))


def prepare(
    rainy: Tensor, preset: Preset, trained: RainNetwork | None = None, device: torch.device | str = "cpu"
) -> Lesson:
    """The references of one picture (1, 3, H, W) in [0, 1].

    Args:
        rainy: the picture.
        preset: how to learn.
        trained: a network that derains already (not for the published preset). Its result, where
            that is not brighter, then moves towards the combined reference as far as the two agree.

    Raises:
        DerainError: a side is shorter than 32 pixels.
    """
    picture = _bytes(rainy)
    refuse_too_small(picture)
    rain = find_rain(picture)
    if preset.plain:
        prior = rain_prior(picture)
        draws = sample_references(picture, prior.map)
        change = draws.fused().astype(np.float32) - picture
        return _lesson(rainy, prior.map, rain.light, change, draws)
    rain_map = rain_map_at(picture, rain.theta)
    change = combined_reference(picture, rain.theta, rain_map) - picture
    if trained is not None:
        derained = run_network(trained.eval(), rainy, device).clamp(0, 1)
        darker = torch.minimum(derained, rainy) - rainy  # rain only adds light
        change = agreed_change(change, 255 * darker[0].permute(1, 2, 0).numpy())
    return _lesson(rainy, rain_map, rain.light, change)


def agreed_change(found: NDArray[Any], trained: NDArray[Any]) -> NDArray[np.float32]:
    """What to take from a picture when the prior and a trained network each say it, all (H, W, 3).

    Both err, differently, so their mean errs less; but where bright lines of the scene look like
    rain the prior takes those away, and only its disagreement with the network tells. Its weight is
    half the fourth power of the cosine between the two: 0.5 when they are the same, 0.03 at a cosine
    of 0.5. Weight and power fit 21 clean photographs under real streak layers.
    """
    lengths = np.sqrt(float((found**2).sum()) * float((trained**2).sum()))
    cosine = max(float((found * trained).sum()) / lengths, 0.0) if lengths else 0.0
    return np.asarray(trained + cosine**4 / 2 * (found - trained), np.float32)


def _bytes(picture: Tensor) -> Bytes:
    """(1, 3, H, W) in [0, 1] -> (H, W, 3) uint8."""
    return (picture[0].permute(1, 2, 0) * 255).round().to(torch.uint8).cpu().numpy()


def _lesson(
    rainy: Tensor, rain_map: Bytes, light: float, change: NDArray[Any], draws: References | None = None
) -> Lesson:
    """`change` is what to add, (H, W, 3) in levels of 8 bits; a deeper picture keeps its depth."""
    difference = torch.from_numpy(np.asarray(change, np.float32)).permute(2, 0, 1)[None]
    suspected = difference.abs().amax(1, keepdim=True) > SUSPECT
    mean = torch.where(suspected, (rainy + difference / 255).clamp(0, 1), rainy)
    return Lesson(rainy, rain_map, light, draws, mean, suspected)


def learn(
    lessons: Sequence[Lesson],
    network: RainNetwork,
    preset: Preset,
    *,
    together: bool = False,
    trained: bool = False,
    seconds: float | None = None,
    device: torch.device | str = "cpu",
    precision: torch.dtype = torch.float32,
    progress: Progress = silent,
) -> Learnt:
    """Teaches `network`, in place, what the lessons hold.

    Args:
        lessons: one, or many for a network that serves them all.
        network: of the registry, fresh or trained.
        preset: how.
        together: take the preset's course for many pictures.
        trained: the network derains already; learn with fewer and smaller steps.
        seconds: end so early that all lessons can be restored within this time.
        device: to learn on.
        precision: to learn in; results are made in float32.
        progress: called with steps done and their number.

    Raises:
        DerainError: the loss is no longer finite.
    """
    began = time.monotonic()
    to_restore = 0.0
    torch.manual_seed(SEED)
    network = network.to(device).train()
    course = preset.together if together else preset.alone
    batches = _batches(lessons, network, course)
    share = TRAINED_SHARE if trained else 1
    rate, steps = preset.learning_rate * share, round(course.steps * share)
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    average = network if preset.plain else copy.deepcopy(network)
    all_pixels = sum(lesson.rainy.shape[2] * lesson.rainy.shape[3] for lesson in lessons)
    losses: list[float] = []
    ended = "steps"
    for step in range(steps):
        gone = 0.0 if seconds is None else (time.monotonic() - began + to_restore) / max(seconds, 1e-9)
        if gone >= 1:
            ended = "time"
            break
        if not preset.plain:
            optimizer.param_groups[0]["lr"] = rate * (1 - max(step / steps, gone))
        rainy, target = (batch.to(device) for batch in next(batches))
        pixels = rainy.shape[0] * rainy.shape[2] * rainy.shape[3]
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(rainy.device.type, precision, enabled=precision != torch.float32):
            output = network(rainy)
        loss = F.mse_loss(output.float(), target)
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(loss.item())
        if not np.isfinite(losses[-1]):
            raise DerainError(f"learning failed: the loss is {losses[-1]} after {step + 1} steps.")
        # A step costs three forward passes; a picture's statistics and overlapping tiles as many.
        to_restore = (time.monotonic() - began) / (step + 1) * all_pixels / pixels
        progress(step + 1, steps)
        if not preset.plain:
            _average(average, network, min(0.98, step / (step + 10)))
            if _settled(losses):
                ended = "settled"
                break
    if not preset.plain:
        set_statistics(average, [lesson.rainy for lesson in lessons], device)
    return Learnt(average.cpu().eval(), ended, losses, to_restore)


def restore(
    lesson: Lesson, network: RainNetwork, preset: Preset, device: torch.device | str = "cpu"
) -> Tensor:
    """The derained picture, (1, 3, H, W) in [0, 1]."""
    image = run_network(network.to(device).eval(), lesson.rainy, device).clamp(0, 1)
    if preset.plain:
        return image
    # Rain only adds light; and network and reference err differently, so their mean errs less.
    image = (torch.minimum(image, lesson.rainy) + lesson.mean) / 2
    return torch.where(lesson.suspected, image, lesson.rainy)


def start_at_identity(network: RainNetwork) -> None:
    """Makes a fresh U-Net return its input, nearly, so that it has only the rain to learn."""
    if isinstance(network, UNet):
        with torch.no_grad():
            convolution = cast(nn.Conv2d, network.get_submodule("dec_1.conv"))
            assert convolution.bias is not None
            convolution.weight.mul_(0.1)
            convolution.bias.zero_()
            channels = convolution.out_channels
            convolution.weight[:, -channels:, 1, 1] += torch.eye(channels)


# ---------------------------------------------------------------- batches


def _batches(
    lessons: Sequence[Lesson], network: RainNetwork, course: Course
) -> Iterator[tuple[Tensor, Tensor]]:
    """Rainy pictures and references, endlessly; the lessons come in turn.

    Small crops are flipped at random and draw a random reference; whole pictures go through the
    references in the alphabetical order of their published file names (0, 1, 10, 11, ...).
    """
    turn = 0
    while True:
        pairs = []
        for _ in range(course.batch):
            lesson = lessons[turn % len(lessons)]
            if course.crop is None:
                pair = lesson.rainy, _reference(lesson, turn // len(lessons), shuffled=False)
                if _is_large(lesson.rainy):
                    pair = _crop(*pair, int(WHOLE_PIXELS**0.5))
            else:
                pair = _crop(lesson.rainy, _reference(lesson, turn, shuffled=True), course.crop)
                if torch.rand(()) < 0.5:
                    pair = pair[0].flip(3), pair[1].flip(3)
            pairs.append(_padded(network, *pair))
            turn += 1
        rainy, target = (torch.cat(parts) for parts in zip(*pairs, strict=True))
        yield rainy, target


def _reference(lesson: Lesson, turn: int, shuffled: bool) -> Tensor:
    """The mean reference, or one of those drawn, (1, 3, H, W)."""
    draws = lesson.draws
    if draws is None:
        return lesson.mean
    order = sorted(range(len(draws)), key=str)
    draw = int(torch.randint(len(draws), ())) if shuffled else order[turn % len(draws)]
    return torch.from_numpy(draws[draw]).permute(2, 0, 1)[None] / 255


def _is_large(picture: Tensor) -> bool:
    return picture.shape[2] * picture.shape[3] > WHOLE_PIXELS


def _crop(rainy: Tensor, target: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """The same random square of both; smaller pictures are reflected first."""
    height, width = (max(side, length) for length in rainy.shape[2:])
    rainy, target = (_reflected(x, height, width) for x in (rainy, target))
    top = int(torch.randint(height - side + 1, ()))
    left = int(torch.randint(width - side + 1, ()))
    area = (..., slice(top, top + side), slice(left, left + side))
    return rainy[area], target[area]


def _padded(network: RainNetwork, *pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Both reflected to a size that the network takes."""
    multiple = network.spec.multiple_of
    height, width = (max(LEAST_SIDE, -(-n // multiple) * multiple) for n in pictures[0].shape[2:])
    rainy, target = (_reflected(picture, height, width) for picture in pictures)
    return rainy, target


def _reflected(picture: Tensor, height: int, width: int) -> Tensor:
    """Continued by reflection at the bottom and right, as often as it takes."""
    for axis, size in ((2, height), (3, width)):
        length = picture.shape[axis]
        if length != size:
            at = torch.arange(size) % max(1, 2 * length - 2)
            picture = picture.index_select(axis, torch.minimum(at, 2 * length - 2 - at).abs())
    return picture


# ---------------------------------------------------------------- the network


def _average(average: nn.Module, network: RainNetwork, keep: float) -> None:
    """Moves the average of weights towards those of the network."""
    with torch.no_grad():
        for mean, value in zip(average.parameters(), network.parameters(), strict=True):
            mean.lerp_(value, 1 - keep)


def _settled(losses: Sequence[float]) -> bool:
    """Whether the last `PATIENCE` losses are hardly lower than those before."""
    if len(losses) < 2 * PATIENCE:
        return False
    before, after = np.mean(losses[-2 * PATIENCE : -PATIENCE]), np.mean(losses[-PATIENCE:])
    return bool(after > 0.99 * before)


def set_statistics(network: RainNetwork, pictures: Sequence[Tensor], device: torch.device | str) -> None:
    """Sets the running averages of BatchNorm to the statistics of the pictures, equally weighted."""
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative average
    network.train()
    side = int(WHOLE_PIXELS**0.5)
    with torch.no_grad():
        for picture in pictures:
            if _is_large(picture):
                for _ in range(8):
                    network(_padded(network, *_crop(picture, picture, side))[0].to(device))
            else:
                network(_padded(network, picture, picture)[0].to(device))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.eval()


def run_network(network: RainNetwork, picture: Tensor, device: torch.device | str = "cpu") -> Tensor:
    """The network's output for a picture of any size; large ones in overlapping tiles, blended."""
    height, width = picture.shape[2:]
    padded = _padded(network, picture, picture)[0]
    # Tiles begin at multiples of this, where strided convolutions see the same grid as in the whole.
    multiple = network.spec.multiple_of
    side = int(WHOLE_PIXELS**0.5) // multiple * multiple if _is_large(picture) else max(padded.shape)
    result = torch.zeros_like(padded)
    weight = torch.zeros_like(padded[:, :1])
    with torch.inference_mode():
        for top in _starts(padded.shape[2], side, multiple):
            for left in _starts(padded.shape[3], side, multiple):
                area = (..., slice(top, top + side), slice(left, left + side))
                tile = padded[area]
                ramp = _ramp(tile.shape[2])[:, None] * _ramp(tile.shape[3])
                result[area] += network(tile.to(device)).cpu() * ramp
                weight[area] += ramp
    return (result / weight)[..., :height, :width]


def _starts(length: int, side: int, multiple: int) -> list[int]:
    """Where evenly spaced tiles begin that overlap by about `TILE_OVERLAP` or more."""
    if length <= side:
        return [0]
    count = -(-(length - TILE_OVERLAP) // (side - TILE_OVERLAP))
    return [round(i * (length - side) / (count - 1) / multiple) * multiple for i in range(count)]


def _ramp(length: int) -> Tensor:
    """Weights that rise from the border of a tile to 1 over half the overlap."""
    at = torch.arange(length) + 1.0
    return torch.minimum(at, at.flip(0)).div(TILE_OVERLAP / 2).clamp(max=1)
