"""What a person needs to accept or reject a clean picture: numbers, warnings and maps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from derain.atomic import replace_file
from derain.background.clean_frame import CleanFrame
from derain.errors import DerainError
from derain.pictures import Picture, write_picture

# Beyond these, someone should look at the result.
MAX_DRIFT = 0.05
MAX_SHIFT = 0.5
MAX_TWO_STATES = 0.01
MIN_FRAMES = 20
MAX_DISAGREEMENT = 8
# Below these there is no scene to find: share of the time, and percentage of the frames.
MIN_STILL = 0.5
MIN_AGREEING = 25


def facts(result: CleanFrame) -> dict[str, Any]:
    """The numbers of the report, ready for JSON; without confidence for fewer than `MIN_FRAMES` frames."""
    ranking = np.argsort(-result.votes, kind="stable")
    confidence = round(float(result.confidence.mean()), 2)
    voters = max(1, int(result.votes.max()))
    return {
        "frames": result.frames,
        "width": result.picture.shape[1],
        "height": result.picture.shape[0],
        "percentile": result.percentile,
        "runner_up": int(ranking[1]),
        "share_of_pixels_for_winner": round(voters / result.confidence.size, 4),
        "mean_confidence_percent": confidence if result.frames >= MIN_FRAMES else None,
        "mean_disagreement_with_median_levels": round(float(result.disagreement.mean()), 3),
        "share_of_pixels_with_two_states": round(float(result.two_states.mean()), 4),
        "brightness_drift": round(result.stability.drift, 4),
        "camera_shift_pixels": round(result.stability.shift, 2),
        "share_of_time_still": round(result.stability.still, 2),
        "warnings": warnings(result),
        "moments": list(result.stability.moments),
        "gains": [round(gain, 4) for gain in result.stability.gains],
        "shifts": [[round(x, 2) for x in shift] for shift in result.stability.shifts],
        "votes": result.votes.tolist(),
    }


def warnings(result: CleanFrame) -> list[str]:
    """Warnings about where the method may have failed; empty if there are none."""
    found = []
    if result.frames < MIN_FRAMES:
        found.append(f"only {result.frames} frames; use {MIN_FRAMES} or more for a reliable result.")
    if result.stability.shift > MAX_SHIFT:
        found.append(
            f"the camera moves by {result.stability.shift:.1f} pixels; use a part in which it stands still."
        )
    if result.stability.drift > MAX_DRIFT:
        found.append(
            f"the brightness drifts by {100 * result.stability.drift:.0f} %; use fewer frames, or lock "
            "the exposure."
        )
    if result.two_states.mean() > MAX_TWO_STATES:
        found.append(
            f"{100 * result.two_states.mean():.1f} % of the pixels show two steady states; something "
            "stood there for a part of the clip."
        )
    if result.disagreement.mean() > MAX_DISAGREEMENT:
        found.append(
            f"the result is {result.disagreement.mean():.0f} grey levels off the temporal median on average; "
            "compare them before you trust it."
        )
    return found


def refuse_movement(clip: str | Path, result: CleanFrame) -> None:
    """Raises `DerainError` if the camera moves most of the time, as the result is then not the scene."""
    agree = float(result.confidence.mean())
    # A fast camera cannot be tracked and so seems to be still, but then hardly any two frames agree.
    if result.stability.still < MIN_STILL or (result.frames >= MIN_FRAMES and agree < MIN_AGREEING):
        raise DerainError(
            f"{clip}: there is no background to find, as the camera, or most of what it shows, moves most of "
            f"the time ({agree:.0f} % of the frames agree with the result); cut out a part in which it "
            "stands still, or stabilise the clip first."
        )


def write_report(folder: str | Path, result: CleanFrame) -> None:
    """Writes `report.json` and three grey maps: `confidence.png` (white: all frames agree),
    `disagreement.png` (difference from the median, times 8) and `two_states.png` (white: two states).

    Raises:
        DerainError: the folder cannot be written to.
    """
    folder = Path(folder)
    confidence = (result.confidence.astype(np.uint16) * 255 // 100).astype(np.uint8)
    disagreement = (np.minimum(result.disagreement, 31) * 8).astype(np.uint8)
    for name, values in (
        ("confidence", confidence),
        ("disagreement", disagreement),
        ("two_states", result.two_states.astype(np.uint8) * 255),
    ):
        write_picture(folder / f"{name}.png", Picture(values[..., None]))
    replace_file(folder / "report.json", (json.dumps(facts(result), indent=1) + "\n").encode())
