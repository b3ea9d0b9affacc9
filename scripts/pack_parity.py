"""Packs numbers of the published implementations into `tests/parity`, for everybody's tests.

    python scripts/pack_parity.py ORACLES

ORACLES is the folder of full oracles; of each system a few thousand values are kept and no weights or
pictures, since those follow from a rule (`tests/parity/rule.py`).
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path.insert(0, str(TESTS))

from derain.methods import all_architectures  # noqa: E402
from derain.methods.rain2avoid.ldgp import rain_prior  # noqa: E402
from parity.rule import levels, sampled  # noqa: E402

# {case: (architecture, oracle, array of the output, largest differences allowed)}
NETWORKS = {
    "spanet": ("spanet", "spanet/full", "spanet_a/out", {"max": 3e-5}),
    "drsformer-light": ("drsformer", "drsformer/light", "output", {"max": 1.5e-4}),
    "drsformer-tiny": ("drsformer", "drsformer/tiny", "output", {"max": 1e-4}),
    "udr_s2former": ("udr_s2former", "udr_s2former/full_64x64", "out_final", {"mean": 5e-4, "max": 5e-3}),
    "nerd_rain-s": ("nerd_rain", "nerd_rain/nerd_rain_s", "main/out0", {"max_by_std": 1e-4}),
    "nerd_rain-tiny": ("nerd_rain", "nerd_rain/tiny", "main/out0", {"max_by_std": 1e-4}),
    "rain2avoid_unet": ("rain2avoid_unet", "rain2avoid/unet", "output", {"max": 5e-6}),
    "rain2avoid_resnet": ("rain2avoid_resnet", "rain2avoid/resnet", "output", {"max": 4e-5}),
    "rain2avoid_dncnn": ("rain2avoid_dncnn", "rain2avoid/dncnn", "output", {"max": 1.5e-4}),
}


def config_of(architecture: str, state: list[tuple[str, list[int], str]]) -> dict[str, Any]:
    """The network's arguments, read off the names and shapes that the oracle lists."""
    (found,) = (a for a in all_architectures() if a.name == architecture)
    config = found.recognise({name: torch.empty(shape, device="meta") for name, shape, _ in state})
    assert config is not None
    return config


def main() -> None:
    folder = Path(sys.argv[1])
    facts: dict[str, Any] = {"networks": {}}
    arrays: dict[str, Any] = {}

    def read(name: str) -> dict[str, Any]:
        stored: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
        return stored

    for case, (architecture, oracle, key, allowed) in NETWORKS.items():
        about = read(oracle)
        gain = {"_weight.weight": 0.5} if architecture == "spanet" else {}
        if about.get("weight_gain_after_fill", 1) != 1:
            gain = {"4d": about["weight_gain_after_fill"]}
        with np.load(folder / f"{oracle}.npz") as stored:
            output = stored[key]
        facts["networks"][case] = {
            "architecture": architecture,
            "config": config_of(architecture, about["state"]),
            "input": {name: about["input"][name] for name in ("name", "height", "width")},
            "gain": gain,
            "bgr": architecture == "spanet",  # the published network takes blue, green and red
            "std": float(output.std()),
            "allowed": allowed,
        }
        arrays[f"networks/{case}"] = sampled(output).astype(np.float32)

    nerd = read("nerd_rain/losses")
    facts["nerd_rain_loss"] = {name: nerd[name] for name in ("target", "predictions", "float64")}
    udr = read("udr_s2former/losses")
    config = config_of("udr_s2former", read("udr_s2former/tiny_64x64")["state"])
    facts["udr_s2former_loss"] = {"inputs": udr["inputs"], "targets": udr["targets"], "config": config}
    facts["udr_s2former_loss"]["float64"] = udr["float64"]
    train = read("drsformer/tiny_train")
    facts["drsformer_training"] = {
        name: train[name] for name in ("config", "inputs", "targets", "height", "width", "optimizer")
    }
    facts["drsformer_training"]["rows"] = train["rows"][:2]
    spanet = read("spanet/loss_tiny")
    with np.load(folder / "spanet" / "loss_tiny.npz") as stored:
        arrays["spanet_loss/rainy"], arrays["spanet_loss/clean"] = stored["rain_u8"], stored["clean_u8"]
    facts["spanet_loss"] = {"config": spanet["config"], "float64": spanet["losses_float64"]}

    facts["protocols"] = [
        {name: case[name] for name in ("name", "height", "width", "amplitude", "values")}
        for case in read("evaluation/protocols")["synthetic"]["cases"]
    ]
    with np.load(folder / "rain2avoid" / "nss_edges.npz") as stored:
        for name in ("rainy", "ldgp", "rain_choice", "rain_fuse", "nonrain_choice", "nonrain_fuse"):
            arrays[f"sampling/{name}"] = stored[name]
    with np.load(folder / "clean_frame" / "clip_odd.npz") as stored:
        arrays["clean_frame/clip"] = stored["clip"]
    with np.load(folder / "clean_frame" / "clip_odd_out.npz") as stored:
        for variant in ("official", "fixed"):
            for name in ("votes", "final"):
                arrays[f"clean_frame/{name}_{variant}"] = stored[f"{name}_{variant}"]
    # No published map of a picture that may be given away exists; this code gave all hundred published
    # maps byte for byte, so what it gives here is what the published code would give.
    map_ = rain_prior(levels("prior", 160, 240).astype(np.uint8)).map
    facts["prior"] = {"name": "prior", "height": 160, "width": 240}
    facts["prior"]["sha256"] = hashlib.sha256(map_.tobytes()).hexdigest()

    target = TESTS / "parity"
    (target / "numbers.json").write_text(json.dumps(facts, indent=1) + "\n")
    np.savez_compressed(target / "numbers.npz", **arrays)


if __name__ == "__main__":
    main()
