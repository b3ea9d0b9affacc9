"""A recipe whose data come from several sources."""

from __future__ import annotations

import itertools
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml

from derain.data.folders import pictures_in
from derain.errors import DerainError, UsageError
from derain.methods.everyday.loss import EverydayLoss
from derain.training import Recipe, load_recipe, train
from derain.training.batches import batches, open_sources
from derain.training.learner import Learner
from derain.training.loop import accelerated
from derain.training.recipe import checked
from derain.training.validation import pairs
from training.conftest import content, python, recipe
from training.test_loop import assert_equal, weights

EVERYDAY = {"widths": [8, 12], "encoder": [1, 1], "decoder": [1]}


@pytest.fixture(scope="module")
def mixture(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Two kinds of made rain on the same pictures, and pairs whose rainy picture is all white."""
    folder = tmp_path_factory.mktemp("pairs")
    for part in ("rainy", "clean"):
        (folder / part).mkdir()
    for file in pictures_in(photos)[:5]:
        cv2.imwrite(str(folder / "rainy" / f"pair_{file.name}"), np.full((40, 48, 3), 255, np.uint8))
        (folder / "clean" / f"pair_{file.name}").write_bytes(file.read_bytes())
    made = {"clean": str(photos), "rain": "light", "share": 0.5}
    paired = {"rainy": str(folder / "rainy"), "clean": str(folder / "clean"), "share": 0.2, "turns": "none"}
    return {"sources": [made, made | {"rain": "heavy", "share": 0.3}, paired]}


def items(wanted: Recipe, start: int = 0, process: int = 0, processes: int = 1) -> list[dict[str, Any]]:
    sources, _ = open_sources(wanted)
    parts = [part for step in batches(wanted, sources, start, process, processes) for part in step]
    return [
        {"name": name, "rainy": rainy, "clean": clean}
        for part in parts
        for name, rainy, clean in zip(part["name"], part["rainy"], part["clean"], strict=True)
    ]


def test_shares_and_items_are_the_same_from_any_step_worker_and_process(
    photos: Path, mixture: dict[str, Any]
) -> None:
    stages = [{"patch": 16, "batch": 10, "steps": 2}, {"patch": 24, "batch": 10}]
    whole = recipe(photos, data=mixture, steps=4, stages=stages)
    expected = items(whole)
    for first in range(0, 40, 10):
        kinds = Counter(item["name"].startswith("pair_") for item in expected[first : first + 10])
        assert kinds == {True: 2, False: 8}
    white = [bool((item["rainy"] == 1).all()) for item in expected]
    assert white == [item["name"].startswith("pair_") for item in expected]
    names = [item["name"] for item in expected if not item["name"].startswith("pair_")]
    assert len(set(names[:20])) == 10

    resumed = items(recipe(photos, data=mixture, steps=4, stages=stages, workers=2), start=1)
    assert [item["name"] for item in resumed] == [item["name"] for item in expected[10:]]
    assert all(torch.equal(a["rainy"], b["rainy"]) for a, b in zip(resumed, expected[10:], strict=True))

    halves = [items(whole, process=process, processes=2) for process in (0, 1)]
    joined = [half[5 * step + i] for step in range(4) for half in halves for i in range(5)]
    assert all(torch.equal(a["clean"], b["clean"]) for a, b in zip(joined, expected, strict=True))


def test_one_source_without_a_list_gives_the_items_that_it_always_gave(photos: Path) -> None:
    """Picked before mixtures existed: runs from then must go on with the same items."""
    (first, *_) = items(recipe(photos))
    assert first["name"] == "photo5.png"
    assert float(first["clean"].double().sum()) == pytest.approx(344.6470654, abs=1e-6)


def test_held_out_pictures_come_from_every_source_by_its_share(photos: Path, mixture: dict[str, Any]) -> None:
    wanted = recipe(photos, data=mixture, validation={"hold_out": 5, "count": 4})
    sources, held_out = open_sources(wanted)
    assert [len(source) for source in sources] == [8, 8, 4]
    names = [source.clean.paths[number].name for source, number in held_out]
    assert names == ["photo0.png", "photo0.png", "pair_photo0.png", "photo5.png"]
    trained_on = {path.name for source in sources for path in source.clean.paths}
    assert not trained_on & set(names)
    assert wanted.validation is not None
    again = [[rainy for rainy, _ in pairs(held_out, wanted.validation)] for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*again, strict=True))
    whole = open_sources(recipe(photos, data=mixture, validation={"hold_out": 5}))[1]
    assert len(whole) == 2 + 2 + 1


def test_a_mixture_goes_on_exactly(photos: Path, tmp_path: Path, mixture: dict[str, Any]) -> None:
    changes = {"data": mixture, "validation": {"hold_out": 5, "every": 3, "patch": 24}, "ema": 0.9}
    train(recipe(photos, **changes), tmp_path / "whole")
    train(recipe(photos, **changes, steps=3), tmp_path / "parts")
    train(load_recipe(tmp_path / "parts" / "recipe.yaml", ["steps=6", "workers=2"]), tmp_path / "parts")
    assert_equal(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    other = {"sources": [*mixture["sources"][:2], mixture["sources"][2] | {"share": 0.3}]}
    with pytest.raises(UsageError, match="holds a run with a different 'data'"):
        train(recipe(photos, **changes | {"data": other}), tmp_path / "parts")


def test_parts_of_a_list_are_replaced_by_their_numbers(
    photos: Path, tmp_path: Path, mixture: dict[str, Any]
) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(recipe(photos, data=mixture).model_dump_json())
    changed = load_recipe(file, ["data.sources.2.share=7", "stages.0.batch=8"])
    assert changed.data.model_dump()["sources"][2]["share"] == 7
    assert changed.stages[0].batch == 8
    with pytest.raises(UsageError, match=r"'stages\.2\.batch=8': '2' is not a position in a list of 2"):
        load_recipe(file, ["stages.2.batch=8"])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"sources": []}, "'data.sources': list should have at least 1 item"),
        ({"sources": [{"clean": "x", "rain": "light"}]}, "'data.sources.0.share' is missing"),
        (
            {"sources": [{"clena": "x", "share": 1}]},
            "unknown key 'data.sources.0.clena'; did you mean 'clean'",
        ),
        ({"sources": [{"share": 1}], "rain": "light"}, "unknown key 'data.rain'; known: sources"),
        ({"sources": [{"share": 1}, {"share": 0.0001}]}, "'data.sources.1.share' is below a thousandth"),
        ({"sources": [{"share": 0}]}, "'data.sources.0.share': give a number above 0"),
        (
            {"sources": [{"share": 1}, {"clean": "x", "rainy": "y", "rain": "light", "share": 1}]},
            r"'data.sources.1.rainy' names pairs and 'data.sources.1.rain' \(light\) makes rain",
        ),
        ({"sources": 3}, "'data.sources': give a list"),
        (
            {"sources": [{"clean": "x", "rain": "light", "share": 1, "loss": {"function": "a:b"}}]},
            "'data.sources.0.loss.function': all sources share one function; name it in 'loss'",
        ),
        (None, "'data': "),
    ],
)
def test_mistakes_in_a_mixture_are_explained(photos: Path, data: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        checked(content(photos, data=data), "my.yaml")
    assert "\n" not in str(caught.value)


def test_layers_are_a_source_and_exclude_other_rain(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "layers").mkdir()
    cv2.imwrite(str(tmp_path / "layers" / "a.png"), np.full((64, 64), 200, np.uint8))
    source = {"clean": str(photos), "layers": str(tmp_path / "layers")}
    wanted = recipe(photos, data=source, validation={"hold_out": 4, "every": 5})
    found = items(wanted)
    assert all((item["rainy"].mean() > item["clean"].mean()) for item in found)
    _, held_out = open_sources(wanted)
    assert wanted.validation is not None
    assert all(rainy.mean() > clean.mean() for rainy, clean in pairs(held_out, wanted.validation))
    with pytest.raises(UsageError, match="one of the three"):
        recipe(photos, data=source | {"rain": "light"})
    with pytest.raises(DerainError, match="no-such-folder"):
        open_sources(recipe(photos, data=source | {"layers": str(tmp_path / "no-such-folder")}))
    with pytest.raises(UsageError, match="is about layers"):
        recipe(photos, data={"clean": str(photos), "rain": "light", "added": True})


def test_a_source_has_its_own_options_of_the_loss(photos: Path, mixture: dict[str, Any]) -> None:
    first, second, third = mixture["sources"]
    data = {"sources": [first, second | {"loss": {"residual": 5.0}}, third]}
    wanted = recipe(photos, network="everyday", options=EVERYDAY, loss={"colour": 0.4}, data=data)
    ((part,),) = itertools.islice(batches(wanted, open_sources(wanted)[0], 0, 0, 1), 1)
    rainy, clean, mine = part["rainy"], part["clean"], part["source"] == 1
    assert 0 < mine.sum() < len(mine)
    outputs = {"image": 0.8 * rainy}
    with accelerated(wanted) as accelerator:
        learner = Learner(wanted, accelerator)
        found = learner.terms(outputs, clean, rainy, part["source"])
        updated = learner.update([part])
    assert list(learner.losses) == [(0, 2), (1,)]
    expected = {
        name: mine.float().mean() * one + (~mine).float().mean() * other
        for (name, one), other in zip(
            EverydayLoss(colour=0.4, residual=5.0)(
                {"image": outputs["image"][mine]}, clean[mine], rainy[mine]
            ).items(),
            EverydayLoss(colour=0.4)({"image": outputs["image"][~mine]}, clean[~mine], rainy[~mine]).values(),
            strict=True,
        )
    }
    torch.testing.assert_close(found, expected)
    assert torch.isfinite(updated["l1"])


def test_an_unknown_option_of_a_source_is_named(
    photos: Path, mixture: dict[str, Any], tmp_path: Path
) -> None:
    first, second, third = mixture["sources"]
    data = {"sources": [first, second | {"loss": {"glow": 1}}, third]}
    wanted = recipe(photos, network="everyday", options=EVERYDAY, data=data)
    with pytest.raises(
        UsageError, match=r"'data\.sources\.1\.loss': the loss of everyday has no option 'glow'"
    ):
        train(wanted, tmp_path / "run")


FIRST_BATCH = """
import multiprocessing.util, sys, tempfile
from pathlib import Path
from derain.training import load_recipe
from derain.training.batches import batches, open_sources
from derain.training.learner import Learner
recipe = load_recipe(Path(sys.argv[1]))
stream = batches(recipe, open_sources(recipe)[0], 0, 0, 1)
next(stream)
here = [str(folder) for folder in Path(tempfile.gettempdir()).glob("pymp-*")]
stream.close()  # its workers would keep the process from ending
assert here == [multiprocessing.util.get_temp_dir()], here
"""


def test_workers_open_their_sockets_in_the_main_process_folder(photos: Path, tmp_path: Path) -> None:
    """A worker may remove a folder of its own while it still opens a socket there."""
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(content(photos, workers=2)))
    with tempfile.TemporaryDirectory() as temporary:  # `tmp_path` is too long for the name of a socket
        process = python(["-c", FIRST_BATCH, str(file)], TMPDIR=temporary)
        _, error = process.communicate(timeout=600)
        assert process.returncode == 0, error
        assert not list(Path(temporary).glob("pymp-*"))
