"""A wrong recipe is one line that names the place and the remedy."""

from __future__ import annotations

import contextlib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from derain.errors import DerainError, UsageError
from derain.methods import all_architectures, method_of, network_names
from derain.plain_yaml import parse_yaml
from derain.training import load_recipe, published_recipes, train
from derain.training.recipe import Data, MixedData, checked, sources_of
from training.conftest import content


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizr": {"rate": 1}}, "unknown key 'optimizr'; did you mean 'optimizer'"),
        ({"data": {"clena": "x"}}, "unknown key 'data.clena'; did you mean 'clean'"),
        ({"schedule": {"name": "cosine", "length": 2, "flor": 1}}, "'schedule.flor'; did you mean 'floor'"),
        ({"schedule": {"name": "cosin"}}, "'schedule': .*'cosin'.*'cosine'"),
        ({"stages": [{"patch": 8, "batches": 2}]}, "'stages.0.batch' is missing"),
        ({"stages": [{"patch": 8, "batch": 2, "qqqq": 2}]}, "'stages.0.qqqq'; known: batch, patch, steps"),
        ({"stages": []}, "'stages': list should have at least 1 item"),
        ({"steps": "many"}, "'steps': give a whole number, not 'many'"),
        ({"steps": 0}, "'steps': give a number above 0, not 0"),
        ({"optimizer": {}}, "'optimizer.rate' is missing"),
        ({"accumulate": 3}, r"'stages.0.batch' is 4, not a multiple of 'accumulate' 3"),
        (
            {"data": {"clean": "x", "rainy": "y", "rain": "light"}},
            r"'data.rain' \(light\) .*For pairs, set 'data.rain' to null",
        ),
        (
            {"validation": {"clean": "x", "hold_out": 4}},
            "'validation.clean' names pictures and 'validation.hold_out' takes.*Set the other to null",
        ),
        (
            {"optimizer": {"rate": 1, "betas": [0.9, 1.0]}},
            "'optimizer.betas.1': give a number below 1, not 1.0",
        ),
        ({"ema": 1.5}, "'ema': give a number below 1, not 1.5"),
        (
            {"data": {"clean": "x", "rain": "light", "angle": [9, -9]}},
            "'data.angle': the smaller angle comes",
        ),
        (
            {"data": {"clean": "x", "rain": "light", "angle": [0, 90]}},
            "'data.angle.1': give a number up to 80",
        ),
        (
            {"data": {"clean": "x", "rain": None, "rainy": "y", "angle": [0, 9]}},
            "name its preset in 'data.rain'",
        ),
        ({"data": {"clean": "x", "rain": "light", "zoom": 2}}, "'data.zoom': give a list of two numbers"),
        ({"data": {"clean": "x", "rain": "light", "zoom": [1, 2, 3]}}, "'data.zoom': give at most 2 of them"),
        ({"data": {"clean": "x", "rain": "light", "zoom": [2, 1]}}, "'data.zoom': the smallest factor comes"),
        (
            {"data": {"clean": "x", "rain": "light", "zoom": [0, 1]}},
            "'data.zoom.0': give a number from 0.1",
        ),
        (
            {"data": {"clean": "x", "rain": "light", "zoom": [1, 2], "crop": "resized"}},
            "'data.zoom' works on windows only",
        ),
    ],
)
def test_mistakes_are_explained(photos: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        checked(content(photos, **changes), "my.yaml")
    assert str(caught.value).startswith("my.yaml: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"rain": "light"}}, "'data.clean' is not given"),
        ({"data": {"clean": "PHOTOS"}}, "'data.rainy' is not given.*'data.rain'"),
        ({"data": {"clean": "PHOTOS/no", "rain": "light"}}, "no: no such folder"),
        ({"data": {"clean": "PHOTOS", "rain": "lite"}}, "unknown rain preset 'lite'. Did you mean 'light'"),
        ({"data": {"clean": "PHOTOS", "rain": "drops", "angle": [0, 9]}}, "angle 0 to 9: has no effect"),
        ({"validation": {}}, "'validation.clean' is not given.*hold_out"),
        ({"stages": [{"patch": 16, "batch": 64}]}, "a batch of 64 is larger than the set of 10 pictures"),
        ({"network": "spanett"}, "unknown network 'spanett'. Did you mean 'spanet'"),
        ({"options": {"widht": 4}}, "'options': spanet: .*widht"),
        ({"network": "rain2avoid_unet", "options": {"levels": 9}}, "'options': rain2avoid_unet: "),
        ({"validation": {"hold_out": 4, "protocol": "matlab"}}, "unknown protocol 'matlab'"),
        ({"validation": {"hold_out": 4, "protocol": "niqe_live"}}, "niqe_live gives no PSNR"),
        ({"start": "PHOTOS/photo1.png"}, r"photo1\.png: "),
        (
            {"loss": {"l1": 2}},
            "'loss': the loss of spanet has no option 'l1'; known: dissimilarity, mask, log_mse",
        ),
    ],
)
def test_what_does_not_exist_is_named(
    photos: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    text = yaml.safe_dump(content(photos, **changes)).replace("PHOTOS", str(photos))
    with pytest.raises(DerainError, match=message) as caught:
        train(checked(yaml.safe_load(text), "test"), tmp_path / "run")
    assert "\n" not in str(caught.value)


def test_changes_on_the_command_line_replace_values(photos: Path, tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(yaml.safe_dump(content(photos)))
    changes = ["steps=9", "optimizer.betas=[0.5, 0.9]", "validation.hold_out=4", "data.rain=heavy"]
    changed = load_recipe(file, changes)
    assert (changed.steps, changed.optimizer.betas, changed.data.rain) == (9, (0.5, 0.9), "heavy")
    assert changed.validation is not None
    assert changed.validation.hold_out == 4
    with pytest.raises(UsageError, match="'steps': changes are written key=value"):
        load_recipe(file, ["steps"])


@pytest.mark.parametrize(
    ("change", "read"),
    [
        ("data.clean=2024", {"clean": "2024"}),
        ("data.clean=no", {"clean": "no"}),
        ("data.clean=#1", {"clean": "#1"}),
        ("data.clean=a: b #2", {"clean": "a: b #2"}),
        ("data.clean='null'", {"clean": "null"}),
        ("data.clean=", {"clean": None}),
        ("data.rain=null", {"rain": None}),
        ("data.saturation=yes", {"saturation": True}),
        ("data.turns=nine", {"turns": "upright_twice_as_likely"}),
    ],
)
def test_a_value_keeps_its_type_where_the_recipe_wants_text(
    photos: Path, tmp_path: Path, change: str, read: dict[str, Any]
) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(yaml.safe_dump(content(photos)))
    data = load_recipe(file, [change]).data.model_dump()
    assert {name: data[name] for name in read} == read


def test_text_within_a_list_and_options_of_the_network(photos: Path, tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    source = {"clean": str(photos), "rain": "light", "share": 1}
    file.write_text(yaml.safe_dump(content(photos, data={"sources": [source]})))
    changed = load_recipe(file, ["data.sources.0.clean=2024", "options.width=8", "origin=2001-01-01"])
    assert changed.data.model_dump()["sources"][0]["clean"] == "2024"
    assert (changed.options, changed.origin) == ({"width": 8}, "2001-01-01")


def test_older_spellings_still_open(photos: Path, tmp_path: Path) -> None:
    old = content(photos, precision="bf16")
    old["optimiser"] = old.pop("optimizer")
    old["data"] = {"clean": str(photos), "rain": "light", "turns": "eight"}
    file = tmp_path / "old.yaml"
    file.write_text(yaml.safe_dump(old))
    new = load_recipe(file, ["optimiser.rate=0.5"])
    assert (new.optimizer.rate, new.precision, new.data.model_dump()["turns"]) == (
        0.5,
        "bfloat16",
        "flips_and_rotations",
    )
    with pytest.raises(UsageError, match="'optimiser' and 'optimizer' are the same"):
        checked(old | {"optimizer": {"rate": 1}}, "x")


BOMB = "b:\n  - &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"  - &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "more than 20000 values"),
        ("options: &o {width: 8, x: *o}", "line 1: .*contains itself"),
        ("options: &a [*a]", "contains itself"),
        ("network: " + "[" * 5000, "nested deeper than 40 levels"),
        ("seed: !!float x", "a value does not fit its type"),
        ("seed: !!bool x", "a value does not fit its type"),
        ("steps: " + "9" * 5000, "a value does not fit its type"),
        ("seed: !!timestamp 2001-99-99", "a value does not fit its type"),
        ("seed: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
        ("a: *b", "undefined alias"),
        ("steps: 5\nseed: 1\nsteps: 6", "line 3: .*the key 'steps' stands there twice"),
        ("data: {clean: a, clean: b}", "the key 'clean' stands there twice"),
        ("? [1, 2]\n: 3\n5: 6", "not a recipe|not YAML"),
        ("{1: 2}", "not a recipe"),
        ("a: \x07", "not YAML"),
        ("", "not a recipe"),
        ("x: " + "y" * 1_000_001, "longer than 1000000 characters"),
    ],
)
def test_hostile_yaml_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        load_recipe(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert "\n" not in str(caught.value)


def test_aliases_within_reason_are_fine(photos: Path, tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    text = yaml.safe_dump(content(photos, data=None)).replace("data: null\n", "")
    sources = "data: {sources: [&a {clean: x, rain: light, share: 1}, {<<: *a, rain: heavy}, *a]}\n"
    file.write_text(text + sources)
    data = load_recipe(file).data.model_dump()
    assert [source["rain"] for source in data["sources"]] == ["light", "heavy", "light"]


@pytest.mark.parametrize("changes", [{"seed": 99999999999999999999}, {"seed": -1}, {"workers": 10**9}])
def test_numbers_beyond_their_range_are_refused(photos: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"'{next(iter(changes))}': give a number "):
        checked(content(photos, **changes), "x")


@given(st.text(st.sampled_from("ab01 -:[]{}&*!#'\"\n,|>?%@`.~<e"), max_size=60))
@settings(max_examples=300)
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(ValueError):
        parse_yaml(text)


def test_files_that_are_no_recipes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("network: [spanet\nsteps: 3")
    with pytest.raises(UsageError, match=r"a\.yaml: line 2: not YAML"):
        load_recipe(tmp_path / "a.yaml")
    (tmp_path / "b.yaml").write_text("just words")
    with pytest.raises(UsageError, match=r"b\.yaml: not a recipe; a recipe is a mapping"):
        load_recipe(tmp_path / "b.yaml")
    with pytest.raises(UsageError, match=r"c\.yaml: cannot be read"):
        load_recipe(tmp_path / "c.yaml")
    with pytest.raises(
        UsageError, match=r"unknown recipe 'spanet/spa-data'\. Did you mean 'spanet/spa_data'"
    ):
        load_recipe("spanet/spa-data")


@pytest.mark.parametrize("name", published_recipes())
def test_a_recipe_lies_with_the_method_that_it_trains(name: str) -> None:
    architecture, _ = network_names()[load_recipe(name).network]
    assert architecture.loss is not None
    assert method_of(architecture).name == name.partition("/")[0]


@pytest.mark.parametrize("name", published_recipes())
def test_published_recipes_run(name: str, photos: Path, tmp_path: Path) -> None:
    """Two steps at reduced size: tiny network, patches of 64, pairs of the same pictures."""
    published = load_recipe(name)
    architecture = next(a for a in all_architectures() if a.name == published.network.partition("-")[0])
    assert architecture.loss is not None
    parts = [part.model_dump() | _folders(part, photos) for part in sources_of(published).values()]
    small = published.model_dump(mode="json") | {
        "options": dict(architecture.tiny),
        "loss": {field.name: None for field in fields(architecture.loss) if field.name == "vgg"},
        "data": {"sources": parts} if isinstance(published.data, MixedData) else parts[0],
        "validation": None,
        "steps": 2,
        "stages": [{"patch": 64, "batch": 2}],
        "workers": 0,
        "log_every": 1,
    }
    train(checked(small, name), tmp_path)
    assert (tmp_path / "last.safetensors").exists()


def _folders(part: Data, photos: Path) -> dict[str, str]:
    """Every folder that a source reads, replaced by one."""
    other = "layers" if part.layers else None if part.rain else "rainy"
    return {key: str(photos) for key in ("clean", other) if key}
