"""Corrects the frames of a clip by their neighbours, which show the scene without this frame's rain.

Rain that covers a point of the scene in one frame hardly ever does so in the frames before and after. So
where a restored frame is brighter than its neighbours, rain was missed, and their values replace it; where
the rainy frame looks the same as its rainy neighbours, what the network removed was part of the scene, and is
put back. The neighbours are aligned with the frame by optical flow (Kroeger et al., Fast Optical Flow using
Dense Inverse Search, ECCV 2016). Where they disagree, as beside moving objects, the frame is left unchanged.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

RADIUS = 2  # neighbours before a frame and after it
PIXELS = 1 << 17  # at which frames are compared; larger ones are reduced, which also averages out noise
SMALLEST_SIDE = 32  # pixels; optical flow does not work in smaller frames
LARGEST_SIDE = (1 << 15) - 2  # pixels; OpenCV cannot warp larger frames, which are left uncorrected
MAX_BYTES_AT_WORK = 1 << 29  # of the frames worked on at once; large frames get fewer threads
MAX_FRAMES_AHEAD = 8  # that a frame waits for, repeats included; limits how many are held in memory
# A frame is a repeat of another if no more than this share of its pixels differs by more than so many levels.
MAX_CHANGED_SHARE, MAX_UNCHANGED_LEVELS = 1e-4, 6
MAX_STREAK_WIDTH = 11  # pixels; anything this wide and high is not a streak, and is never replaced
# Levels of 255: differences up to the first are ignored, as nobody sees them; from the second on, they count
# in full.
MIN_DIFFERENCE, FULL_DIFFERENCE = 1.0, 3.0
MIN_WEIGHT = 0.02  # from 0 to 1; pixels below are skipped, which saves sampling them in the neighbours

Grey = NDArray[np.uint8]
Plane = NDArray[np.float32]
Pixels = NDArray[Any]
Neighbour = tuple["_Prepared", Plane]  # with the flow to it
Flows = Future[tuple[Plane, Plane]]  # from a frame to the next, and back


@dataclass(frozen=True)
class Seen:
    """A frame before and after restoring.

    Attributes:
        rainy, restored: (H, W, 3) RGB, both uint8 or both uint16.
    """

    rainy: Pixels
    restored: Pixels


@dataclass(frozen=True)
class _Prepared:
    """A frame, and the reduced grey versions (h, w) that are compared."""

    frame: Seen
    rainy: Grey
    restored: Grey


@dataclass(frozen=True)
class _Path:
    """The way to a neighbour: the flows between successive frames from the earlier one to the later."""

    neighbour: _Prepared
    flows: list[Flows]
    is_later: bool

    def flow(self) -> Plane:
        """From the frame to the neighbour."""
        steps = [flow.result() for flow in self.flows]
        forth = [one for one, _ in steps] if self.is_later else [back for _, back in steps[::-1]]
        whole = forth[0]
        for step in forth[1:]:
            whole = _joined(whole, step)
        return whole


def corrected(frames: Iterator[Seen], workers: int = 1) -> Generator[Pixels]:
    """The restored frames of a clip, corrected, in their order.

    A frame is corrected as soon as `RADIUS` later ones have been read, not counting repeats, or
    `MAX_FRAMES_AHEAD` counting them. An error in `frames` is raised once the frames before it have been
    yielded.

    Args:
        frames: all of one size, in the order of time.
        workers: the number of threads, each of which works on one frame; fewer are used for large frames.
    """
    clip, at_work, errors = _Window(), deque[Future[Pixels]](), list[Exception]()
    # No deadlock: tasks wait only for earlier ones, and a pool starts them in order.
    with ThreadPoolExecutor(workers) as pool:
        for frame in _until_error(frames, errors):
            clip.add(_prepared(frame), pool)
            most = max(1, min(workers, MAX_BYTES_AT_WORK // (frame.rainy.nbytes + frame.restored.nbytes)))
            while clip.is_ready():
                at_work.append(pool.submit(_corrected, *clip.next()))
            while at_work and (len(at_work) >= most or at_work[0].done()):
                yield at_work.popleft().result()
        while clip.due < len(clip.frames):
            at_work.append(pool.submit(_corrected, *clip.next()))
        while at_work:
            yield at_work.popleft().result()
    if errors:
        raise errors[0]


class Following:
    """Corrects each frame of a camera, which cannot wait for later ones, by those before it.

    Two neighbours say less than four: on a clip with synthetic rain the result is some 1.7 dB below that of
    `corrected`, and 3.8 dB above each frame alone. A frame of another size or depth starts anew.
    """

    def __init__(self) -> None:
        # The latest frames that are not repeats, each with the flow to the one before it.
        self._past: deque[tuple[_Prepared, Plane | None]] = deque(maxlen=RADIUS + 1)

    def corrected(self, frame: Seen) -> Pixels:
        """The restored frame, corrected."""
        if _too_large(frame):
            return frame.restored
        new = _prepared(frame)
        if self._past and _kind(self._past[-1][0].frame) != _kind(frame):
            self._past.clear()
        if self._past and _is_repeat(new, self._past[-1][0]):
            _, flow = self._past.pop()
        else:
            flow = _flow(new.restored, self._past[-1][0].restored) if self._past else None
        neighbours = list[Neighbour]()
        whole = flow
        for earlier, step in reversed(self._past):
            if whole is None or len(neighbours) == RADIUS:
                break
            neighbours.append((earlier, whole))
            whole = None if step is None else _joined(whole, step)
        self._past.append((new, flow))
        return _replaced(new, neighbours)


def _too_large(frame: Seen) -> bool:
    return bool(max(frame.restored.shape) > LARGEST_SIDE)


def _kind(frame: Seen) -> tuple[Any, ...]:
    return frame.rainy.shape, frame.rainy.dtype


def _until_error(frames: Iterator[Seen], errors: list[Exception]) -> Iterator[Seen]:
    try:
        yield from frames
    except Exception as error:
        errors.append(error)


class _Window:
    """The latest frames of a clip.

    Clips whose frame rate was raised contain repeated frames, and repeated rain looks like part of the scene.
    So the neighbours of a frame are never repeats of it, or of each other.
    """

    def __init__(self) -> None:
        self.frames: list[_Prepared] = []
        self.due = 0  # the index of the frame that is corrected next
        # From the frame before each, and back; None for the first frame of the clip and for repeats.
        self._flows: list[Flows | None] = []
        self._newest: _Prepared | None = None

    def add(self, frame: _Prepared, pool: ThreadPoolExecutor) -> None:
        """Adds the next frame; the flow to it is computed in the pool."""
        flow = None
        if self._newest is None:
            self._newest = frame
        elif not _is_repeat(frame, self._newest):
            flow = pool.submit(_flows, self.frames[-1], frame)
            self._newest = frame
        self.frames.append(frame)
        self._flows.append(flow)

    def is_ready(self) -> bool:
        """Whether enough frames after the one that is due have been read."""
        return len(self.frames) - self.due > MAX_FRAMES_AHEAD or len(self._after()) == RADIUS

    def next(self) -> tuple[_Prepared, list[_Path]]:
        """The frame that is due, and the paths to its neighbours. Drops frames that no later one needs."""
        centre, after, before = self.frames[self.due], self._after(), self._before()
        paths = [_Path(self.frames[place], self._between(self.due, place), True) for place in after]
        paths += [_Path(self.frames[place], self._between(place, self.due), False) for place in before]
        needed = min([*before, self.due])
        self.due += 1 - needed
        del self.frames[:needed], self._flows[:needed]
        return centre, paths

    def _after(self) -> list[int]:
        return self._new(self.due + 1, len(self.frames))[:RADIUS]

    def _before(self) -> list[int]:
        return [place - 1 for place in self._new(1, self.due + 1)[::-1][:RADIUS]]

    def _new(self, first: int, end: int) -> list[int]:
        """The indices in a range whose frames are not repeats of the one before them."""
        return [place for place in range(first, end) if self._flows[place] is not None]

    def _between(self, first: int, last: int) -> list[Flows]:
        return [flow for flow in self._flows[first + 1 : last + 1] if flow is not None]


def _is_repeat(frame: _Prepared, other: _Prepared) -> bool:
    changed = cv2.absdiff(frame.rainy, other.rainy) > MAX_UNCHANGED_LEVELS
    return bool(np.count_nonzero(changed) <= MAX_CHANGED_SHARE * changed.size)


def _prepared(frame: Seen) -> _Prepared:
    height, width = frame.rainy.shape[:2]
    scale = min((PIXELS / (height * width)) ** 0.5, 1)
    size = max(int(width * scale), 1), max(int(height * scale), 1)

    def grey(pixels: Pixels) -> Grey:
        values: Pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
        levels = values if values.dtype == np.uint8 else cv2.convertScaleAbs(values, alpha=1 / 257)
        return np.asarray(cv2.resize(levels, size, interpolation=cv2.INTER_AREA))

    return _Prepared(frame, grey(frame.rainy), grey(frame.restored))


def _flows(one: _Prepared, other: _Prepared) -> tuple[Plane, Plane]:
    """The flow from one frame to the other, and back."""
    return _flow(one.restored, other.restored), _flow(other.restored, one.restored)


def _flow(here: Grey, there: Grey) -> Plane:
    """Where each pixel of a frame is in another: (h, w, 2) distances to the right and down."""
    if min(here.shape) < SMALLEST_SIDE:
        return np.zeros((*here.shape, 2), np.float32)
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    # On clips with synthetic rain as good as the preset, in half the time.
    search.setPatchStride(5)
    search.setGradientDescentIterations(8)
    search.setVariationalRefinementIterations(3)
    unused: Any = None
    return np.asarray(search.calc(here, there, unused))


def _moved(picture: Any, flow: Plane, interpolation: int = cv2.INTER_CUBIC) -> Any:
    """A picture with every pixel sampled at the place to which the flow points."""
    rows, columns = (np.arange(n, dtype=np.float32) for n in flow.shape[:2])
    places = flow.copy()
    places[..., 0] += columns
    places[..., 1] += rows[:, None]
    return _fetched(picture, places, interpolation)


def _joined(first: Plane, then: Plane) -> Plane:
    """The composition of two flows."""
    return np.asarray(first + _moved(then, first, cv2.INTER_LINEAR), np.float32)


def _fetched(picture: Any, places: Any, interpolation: int) -> Any:
    """Samples a picture at fractional columns and rows (h, w, 2)."""
    unused: Any = None
    return cv2.remap(picture, places, unused, interpolation, borderMode=cv2.BORDER_REPLICATE)


def _corrected(centre: _Prepared, paths: Sequence[_Path]) -> Pixels:
    if _too_large(centre.frame):
        return centre.frame.restored
    return _replaced(centre, [(path.neighbour, path.flow()) for path in paths])


def _replaced(centre: _Prepared, neighbours: Sequence[Neighbour]) -> Pixels:
    """The restored frame, corrected by its neighbours."""
    # With a single neighbour, rain cannot be told from movement.
    if len(neighbours) < 2:
        return centre.frame.restored
    missed, lost = _weights(centre, neighbours)
    rainy, restored = centre.frame.rainy, centre.frame.restored
    result = cv2.add(restored, _share(cv2.subtract(rainy, restored), lost))
    weights = _enlarged(missed, restored)
    chosen = np.flatnonzero(weights > MIN_WEIGHT * _largest(restored))
    if len(chosen):
        ours, pixels = restored.reshape(-1, 3)[chosen], result.reshape(-1, 3)
        others, flows = zip(*neighbours, strict=True)
        theirs = _middle(_at([other.frame.restored for other in others], flows, chosen))[0]
        share = weights.reshape(-1, 1)[chosen] / np.float32(_largest(restored))
        pixels[chosen] = np.rint(pixels[chosen] - share * np.maximum(ours - theirs, 0))
    return np.asarray(result)


def _largest(pixels: Pixels) -> int:
    return np.iinfo(pixels.dtype).max


def _share(pixels: Pixels, weight: Plane) -> Pixels:
    """Pixels (H, W, 3) times a weight in [0, 1] that was computed on reduced frames."""
    weights = cv2.cvtColor(_enlarged(weight, pixels), cv2.COLOR_GRAY2RGB)
    return np.asarray(cv2.multiply(pixels, weights, scale=1 / _largest(pixels)))


def _enlarged(weight: Plane, pixels: Pixels) -> Pixels:
    """A weight in [0, 1], enlarged to the size of the pixels and scaled to their depth."""
    levels = np.rint(weight * _largest(pixels)).astype(pixels.dtype)
    return np.asarray(cv2.resize(levels, pixels.shape[1::-1]))


def _weights(centre: _Prepared, neighbours: Sequence[Neighbour]) -> tuple[Plane, Plane]:
    """To what degree, 0 to 1, each pixel is missed rain, and is part of the scene mistaken for rain."""
    rainy, restored = centre.rainy.astype(np.float32), centre.restored.astype(np.float32)
    around, disagreement = _middle([_moved(other.restored, flow) for other, flow in neighbours])
    brighter = restored - around
    missed = np.maximum(brighter, 0)
    # Misaligned neighbours make the frame darker as often as brighter. Fewer neighbours are weaker evidence.
    wrong = cv2.blur(missed - brighter, (7, 7))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (MAX_STREAK_WIDTH, MAX_STREAK_WIDTH))
    narrow = cv2.morphologyEx(centre.restored, cv2.MORPH_TOPHAT, disc)
    missed = np.minimum(missed, narrow)
    missed = _believed(missed, (disagreement + wrong) * (2 * RADIUS / len(neighbours)))

    around, disagreement = _middle([_moved(other.rainy, flow) for other, flow in neighbours])
    change = cv2.subtract(centre.rainy, centre.restored)
    lost = _believed(change.astype(np.float32), np.abs(rainy - around) + disagreement)
    # What is not a streak, such as the glow around a lamp, is put back evenly.
    wide = cv2.morphologyEx(change, cv2.MORPH_OPEN, disc) / np.maximum(change, np.float32(1))
    lost += wide * (cv2.blur(lost, (2 * MAX_STREAK_WIDTH + 1, 2 * MAX_STREAK_WIDTH + 1)) - lost)
    return missed * (1 - lost), lost


def _at(pictures: Sequence[Pixels], flows: Sequence[Plane], chosen: NDArray[np.intp]) -> list[Pixels]:
    """The colours (N, 3) of each picture at the places to which its flow takes the chosen pixels.

    The flows were computed on reduced frames; `chosen` has indices into the flattened full-size frame.
    """
    (height, width), (h, w) = pictures[0].shape[:2], flows[0].shape[:2]
    scale = np.array([width / w, height / h], np.float32)
    columns = min(len(chosen), 4096)  # OpenCV refuses longer rows
    places = np.zeros((-(-len(chosen) // columns), columns, 2), np.float32)
    places.reshape(-1, 2)[: len(chosen)] = np.stack(np.divmod(chosen, width)[::-1], -1)
    # Coordinates are integers at the centres of pixels.
    reduced = places if scale.max() == 1 else (places + 0.5) / scale - 0.5
    found = []
    for picture, flow in zip(pictures, flows, strict=True):
        there = places + scale * _fetched(flow, reduced, cv2.INTER_LINEAR)
        found.append(_fetched(picture, there, cv2.INTER_CUBIC).reshape(-1, 3)[: len(chosen)])
    return found


def _middle(values: Sequence[Pixels]) -> tuple[Plane, Plane]:
    """The median of two to four arrays, and their mean absolute deviation from it."""
    ordered = list(values)
    for end in range(len(ordered) - 1, 0, -1):  # bubble sort: no branch depends on the values
        for i in range(end):
            a, b = ordered[i : i + 2]
            ordered[i], ordered[i + 1] = np.minimum(a, b), np.maximum(a, b)
    count = len(ordered)
    floats = [array.astype(np.float32) for array in ordered]
    middle = (floats[(count - 1) // 2] + floats[count // 2]) / 2
    lower, upper = floats[: count // 2], floats[(count + 1) // 2 :]
    spread = sum(b - a for a, b in zip(lower, reversed(upper), strict=True))
    return middle.astype(np.float32, copy=False), np.asarray(spread / count, np.float32)


def _believed(difference: Plane, doubt: Plane) -> Plane:
    """How far to trust a difference, given a doubt about it, both in levels of 255.

    1 where the doubt is below two sevenths of the difference, 0 from four sevenths on. Small holes are
    filled, and edges softened outwards.
    """
    sure = np.clip(2 - 3.5 * doubt / np.maximum(difference, 1), 0, 1)
    sure *= np.clip((difference - MIN_DIFFERENCE) / (FULL_DIFFERENCE - MIN_DIFFERENCE), 0, 1)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
    filled = cv2.morphologyEx(sure, cv2.MORPH_CLOSE, disc)
    return np.asarray(np.maximum(filled, cv2.blur(filled, (3, 3))), np.float32)
