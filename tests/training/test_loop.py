"""What a run does and leaves behind, in this process."""

from __future__ import annotations

import csv
import errno
import json
import os
import signal
import threading
from pathlib import Path

import pytest
import torch
import yaml

from derain.checkpoints import open_checkpoint, read_tensors
from derain.data.folders import pictures_in
from derain.errors import DerainError, UsageError
from derain.locks import exclusive_lock
from derain.methods import create_network
from derain.training import Stopped, train
from derain.training.log import read_log
from derain.training.plot import plot_run
from derain.training.recomputing import checkpoint_activations
from derain.training.state import RunState, load_state
from training.conftest import content, python, recipe

VALIDATION = {"hold_out": 5, "every": 3, "patch": 24}


def weights(run: Path) -> dict[str, torch.Tensor]:
    return read_tensors(run / "last.safetensors").state


def saved(run: Path) -> RunState:
    loaded = load_state(run)
    assert loaded is not None
    return loaded[0]


def assert_equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


def test_a_run_leaves_weights_logs_and_a_plot(photos: Path, tmp_path: Path) -> None:
    train(recipe(photos, validation=VALIDATION, ema=0.9), tmp_path)
    _, checkpoint = open_checkpoint(tmp_path / "last.safetensors")
    assert (checkpoint.config, checkpoint.facts["step"]) == ({"width": 4}, 6)
    _, best = open_checkpoint(tmp_path / "best.safetensors")
    events = read_log(tmp_path)
    validated = [e for e in events if e["kind"] == "validation"]
    assert best.facts["psnr"] == max(e["psnr"] for e in validated)
    assert best.facts["protocol"] == "matlab_y_uint8"
    assert [e["step"] for e in validated] == [3, 6]
    assert all(e["rainy_psnr"] == validated[0]["rainy_psnr"] for e in validated)
    with (tmp_path / "training.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [1, 2, 3, 4, 5, 6]
    assert {"rate", "l1", "dissimilarity", "mask", "seconds"} <= rows[0].keys()
    assert float(rows[0]["rate"]) == 1e-3
    assert plot_run(tmp_path).stat().st_size > 1000


def test_tensorboard_gets_figures_and_sample_pictures(photos: Path, tmp_path: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train(recipe(photos, validation=VALIDATION, tensorboard=True), tmp_path)
    events = reader.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("training/l1")] == [1, 2, 3, 4, 5, 6]
    assert [event.step for event in events.Images("rainy, restored, clean")] == [3, 6]


def test_weights_and_biases_get_figures_and_one_run_stays_one(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    changes = {"validation": VALIDATION, "wandb": "tests"}
    train(recipe(photos, steps=3, **changes), tmp_path / "run")
    train(recipe(photos, **changes), tmp_path / "run")
    identity = (tmp_path / "run" / "wandb.txt").read_text()
    offline = list((tmp_path / "run" / "wandb").glob(f"offline-run-*-{identity}"))
    assert offline
    assert list(offline[0].rglob("rainy, restored, clean*.png"))


def test_learning_lowers_the_loss(photos: Path, tmp_path: Path) -> None:
    changes = {
        "options": {"width": 8},
        "steps": 60,
        "stages": [{"patch": 16, "batch": 4}],
        "optimizer": {"rate": 3e-3, "clip": 0.5},
        "schedule": {"name": "constant"},
        "validation": VALIDATION | {"every": 20},
    }
    train(recipe(photos, **changes), tmp_path)
    events = read_log(tmp_path)
    losses = [e["l1"] + e["dissimilarity"] for e in events if e["kind"] == "training"]
    scores = [e["psnr"] for e in events if e["kind"] == "validation"]
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])
    assert scores[-1] > scores[0] + 2


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_in_two_parts_equals_one_run(photos: Path, tmp_path: Path, workers: int) -> None:
    changes = {"validation": VALIDATION, "ema": 0.9, "accumulate": 2}
    train(recipe(photos, **changes), tmp_path / "whole")
    # 4 steps, then the rest: a cosine over all 6 steps, so the rate goes on as well.
    train(recipe(photos, **changes, steps=4, workers=workers), tmp_path / "parts")
    train(recipe(photos, **changes, workers=workers), tmp_path / "parts")
    assert_equal(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    whole, parts = saved(tmp_path / "whole"), saved(tmp_path / "parts")
    assert_equal(whole.network, parts.network)
    for number, moments in whole.optimizer["state"].items():
        assert_equal(moments, parts.optimizer["state"][number])
    assert torch.equal(whole.random[0]["cpu"], parts.random[0]["cpu"])
    logs = [
        [{k: v for k, v in e.items() if k != "seconds"} for e in read_log(tmp_path / run)]
        for run in ("whole", "parts")
    ]
    assert [e for e in logs[1] if e["step"] != 4 or e["kind"] == "training"] == logs[0]


def test_events_after_the_saved_step_are_dropped(photos: Path, tmp_path: Path) -> None:
    train(recipe(photos), tmp_path)
    state = torch.load(tmp_path / "previous.pt", weights_only=True)
    assert state["step"] == 4
    before = weights(tmp_path)
    (tmp_path / "previous.pt").replace(tmp_path / "last.pt")
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"kind": "train')  # what a crash leaves
    train(recipe(photos), tmp_path)
    assert [e["step"] for e in read_log(tmp_path)] == [1, 2, 3, 4, 5, 6]
    assert_equal(weights(tmp_path), before)


def test_a_damaged_last_state_falls_back_on_the_one_before(photos: Path, tmp_path: Path) -> None:
    train(recipe(photos), tmp_path)
    before = weights(tmp_path)
    last = tmp_path / "last.pt"
    last.write_bytes(last.read_bytes()[:1000])
    told: list[str] = []
    train(recipe(photos), tmp_path, lambda done, steps, words: told.append(words))
    assert (
        told[0]
        == f"{tmp_path}: continues after step 4 of 6, from previous.pt, as last.pt is damaged or missing"
    )
    assert_equal(weights(tmp_path), before)
    last.write_bytes(b"")
    (tmp_path / "previous.pt").write_bytes(b"")
    with pytest.raises(DerainError, match=r"last\.pt: damaged.*previous\.pt: damaged.*Remove the files"):
        train(recipe(photos), tmp_path)


def test_a_disk_without_hard_links_keeps_the_state_before(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    train(recipe(photos), tmp_path)
    assert torch.load(tmp_path / "previous.pt", weights_only=True)["step"] == 4


def test_another_recipe_does_not_go_on_with_the_run(photos: Path, tmp_path: Path) -> None:
    train(recipe(photos, steps=2), tmp_path)
    with pytest.raises(UsageError, match=r"holds a run with a different 'seed' \(0, now 1\)"):
        train(recipe(photos, steps=2, seed=1), tmp_path)
    # The recipe that lies in the run's folder may have been edited.
    (tmp_path / "recipe.yaml").write_text("edited")
    with pytest.raises(UsageError, match="holds a run with a different 'seed'"):
        train(recipe(photos, steps=2, seed=1), tmp_path)
    train(recipe(photos, steps=3, workers=1, save_every=1), tmp_path)
    assert open_checkpoint(tmp_path / "last.safetensors").checkpoint.facts["step"] == 3
    with pytest.raises(UsageError, match="has already done 3 steps, more than these 2"):
        train(recipe(photos, steps=2), tmp_path)
    assert "steps: 3" in (tmp_path / "recipe.yaml").read_text()


def test_parts_of_a_batch_sum_to_the_batch(photos: Path, tmp_path: Path) -> None:
    stages = [{"patch": 16, "batch": 4}]
    for accumulate in (1, 4):
        train(recipe(photos, stages=stages, accumulate=accumulate), tmp_path / f"{accumulate}")
    a, b = weights(tmp_path / "1"), weights(tmp_path / "4")
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", ["spanet"])
def test_recomputed_activations_give_the_same_gradients(name: str) -> None:
    rainy = torch.rand(1, 3, 16, 16)
    gradients = []
    for recompute in (False, True):
        torch.manual_seed(0)
        network = create_network(name, width=4).train()
        if recompute:
            checkpoint_activations(network)
        network.outputs(rainy)["image"].square().mean().backward()
        gradients.append({n: p.grad for n, p in network.named_parameters() if p.grad is not None})
    assert_equal(*gradients)


@pytest.mark.parametrize(
    "changes", [{"precision": "bfloat16"}, {"channels_last": True}, {"checkpointing": True}]
)
def test_options_of_speed_change_results_by_rounding_only(
    photos: Path, tmp_path: Path, changes: dict[str, object]
) -> None:
    train(recipe(photos), tmp_path / "plain")
    train(recipe(photos, **changes), tmp_path / "fast")
    plain, fast = (read_log(tmp_path / run) for run in ("plain", "fast"))
    for a, b in zip(plain, fast, strict=True):
        assert a["l1"] == pytest.approx(b["l1"], rel=0.03 if "precision" in changes else 1e-3)


def test_a_loss_that_is_not_finite_stops_the_run(photos: Path, tmp_path: Path) -> None:
    wild = recipe(photos, optimizer={"rate": 1e30}, schedule={"name": "constant"}, save_every=1)
    with pytest.raises(
        DerainError, match=r"step 2: the loss is not finite \(l1 .*\); the pictures were photo"
    ):
        train(wild, tmp_path)
    loaded = load_state(tmp_path)
    assert loaded is None or all(torch.isfinite(t).all() for t in loaded[0].network.values())


def test_a_bad_picture_is_named(photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for file in pictures_in(photos):
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "photo3.png").write_bytes(b"\x89PNG and then nothing")
    for workers in (0, 2):
        with pytest.raises(DerainError, match=r"^\S*photo3\.png: ") as caught:
            train(recipe(folder, workers=workers), tmp_path / f"run{workers}")
        assert "\n" not in str(caught.value)


def test_a_bad_picture_ends_the_run_with_its_workers(photos: Path, tmp_path: Path) -> None:
    """In a process of its own: workers that do not end would keep it from ending."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for file in pictures_in(photos):
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "photo3.png").write_bytes(b"\x89PNG and then nothing")
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(content(folder, workers=2)))
    process = python(["-m", "derain", "train", str(file), "-o", str(tmp_path / "run")])
    _, error = process.communicate(timeout=600)
    assert (process.returncode, error.count("\n")) == (1, 1), error
    assert "photo3.png: " in error


def test_a_second_run_into_the_same_folder_is_told_who_has_it(photos: Path, tmp_path: Path) -> None:
    with (
        exclusive_lock(tmp_path / "run"),
        pytest.raises(DerainError, match=rf"run: .* process {os.getpid()} on "),
    ):
        train(recipe(photos), tmp_path / "run")
    # What a killed process leaves does not stop anybody.
    (tmp_path / ".run.lock").write_text('{"process": 1, "machine": "elsewhere"}')
    train(recipe(photos, steps=1), tmp_path / "run")
    assert not (tmp_path / ".run.lock").exists()


def test_a_state_of_an_earlier_version_goes_on(photos: Path, tmp_path: Path) -> None:
    train(recipe(photos), tmp_path / "whole")
    train(recipe(photos, steps=4), tmp_path / "old")
    state = torch.load(tmp_path / "old" / "last.pt", weights_only=True)
    old = state["recipe"]
    old["optimiser"] = {k: v for k, v in old.pop("optimizer").items() if k != "momentum"}
    old["data"] = {"clean": str(photos), "rainy": None, "rain": "light", "crop": "window", "turns": "eight",
                   "saturation": False, "keep": True}  # fmt: skip
    state["optimiser"] = state.pop("optimizer")
    torch.save(state, tmp_path / "old" / "last.pt")
    train(recipe(photos), tmp_path / "old")
    assert_equal(weights(tmp_path / "whole"), weights(tmp_path / "old"))


def test_a_full_disk_leaves_the_last_good_state(photos: Path, tmp_path: Path) -> None:
    train(recipe(photos, steps=4), tmp_path)
    code = f"""
import resource, sys
from pathlib import Path
sys.path[:0] = {[str(p) for p in (Path(__file__).parents[1],)]!r}
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from training.conftest import recipe
from derain.training import train
train(recipe(Path({str(photos)!r})), {str(tmp_path)!r})
"""
    process = python(["-c", code])
    _, error = process.communicate(timeout=600)
    assert process.returncode == 1
    assert "last.pt: cannot be written (File too large)" in error
    state = saved(tmp_path)
    assert state.step == 4
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(".")) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_after_its_step(photos: Path, tmp_path: Path, number: signal.Signals) -> None:
    log = tmp_path / "log.jsonl"
    done = threading.Event()

    def stop_once_running() -> None:
        while not done.wait(0.01):
            if log.exists() and log.read_text():
                signal.pthread_kill(main, number)
                return

    main = threading.main_thread().ident
    assert main is not None
    thread = threading.Thread(target=stop_once_running)
    thread.start()
    try:
        with pytest.raises(Stopped, match=r"stopped after step .*; the state is saved in .*Train into it"):
            train(recipe(photos, steps=4000), tmp_path)
    finally:
        done.set()
        thread.join()
    state = saved(tmp_path)
    assert state.step == json.loads(log.read_text().splitlines()[-1])["step"]


def test_pairs_are_found_by_the_names_of_the_public_sets(photos: Path, tmp_path: Path) -> None:
    for folder, name in (("input", "{}_{}.png"), ("target", "{}.png")):
        (tmp_path / folder).mkdir()
        for number, photo in enumerate(pictures_in(photos)):
            for rain in (1, 2) if folder == "input" else (0,):
                (tmp_path / folder / name.format(900 + number, rain)).write_bytes(photo.read_bytes())
    pairs = {"rainy": str(tmp_path / "input"), "clean": str(tmp_path / "target")}
    train(recipe(photos, data=pairs), tmp_path / "run")
    assert (tmp_path / "run" / "last.safetensors").exists()
    (tmp_path / "target" / "903.png").unlink()
    with pytest.raises(DerainError, match=r"903_1\.png has no partner in .*target, nor has 1 other;"):
        train(recipe(photos, data=pairs), tmp_path / "other")
