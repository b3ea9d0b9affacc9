"""`Derainer`: kinds of pictures, settings, ensemble, running out of memory."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import derain
from clips import content, moving_scene, write_clip
from derain.checkpoints import Model
from derain.checkpoints.bundled import bundled_names
from derain.errors import DerainError, UsageError
from derain.methods import create_network
from derain.methods.everyday import fast
from derain.methods.network import RainNetwork
from derain.pictures import Picture, read_picture, to_tensor, with_pixels, write_picture
from derain.pictures.picture import grey_pixels
from derain.restore import Derainer, Settings, memory
from derain.restore.blending import blended
from derain.restore.jobs import plan
from derain.restore.memory import fitting_tile
from derain.restore.precision import is_bfloat16_native
from derain.restore.rain import measure_rain

SAMPLES = Path(__file__).parents[2] / "samples"


@pytest.fixture(scope="module")
def derainer(weights: Path) -> Derainer:
    return derain.load(weights)


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (23, 31, 3), np.uint8)


def test_gives_back_the_kind_that_it_was_given(
    derainer: Derainer, pixels: np.ndarray, tmp_path: Path
) -> None:
    restored = derainer(pixels)
    assert restored.dtype == np.uint8
    assert restored.shape == pixels.shape
    assert not np.array_equal(restored, pixels)

    assert np.array_equal(np.asarray(derainer(Image.fromarray(pixels))), restored)
    tensor = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
    assert np.array_equal((derainer(tensor) * 255).round().byte().permute(1, 2, 0).numpy(), restored)
    batch = derainer(torch.stack([tensor, tensor.flip(-1)]))
    torch.testing.assert_close(batch[0], derainer(tensor), rtol=0, atol=1e-5)  # one product or two
    floats = derainer(pixels.astype(np.float64) / 255)
    assert floats.dtype == np.float64
    np.testing.assert_allclose(floats, derainer(tensor).permute(1, 2, 0), atol=1e-6)
    deep = derainer(pixels.astype(np.uint16) * 257)
    assert deep.dtype == np.uint16
    assert np.abs(deep / 257 - restored).max() <= 0.51

    write_picture(tmp_path / "a.png", Picture(pixels))
    written = derainer(tmp_path / "a.png")
    assert written == tmp_path / "a-derained.png"
    assert np.array_equal(read_picture(written).pixels, restored)


def test_a_result_is_named_as_by_the_command_line(
    derainer: Derainer, pixels: np.ndarray, tmp_path: Path
) -> None:
    write_picture(tmp_path / "a.png", Picture(pixels))
    source = (tmp_path / "a.png").rename(tmp_path / "holiday 3.5")
    (job,) = plan([source]).jobs
    assert derainer(source) == job.target == tmp_path / "holiday 3.5-derained.png"


def test_grey_and_alpha(derainer: Derainer, pixels: np.ndarray) -> None:
    grey = derainer(pixels[..., 0])
    assert grey.shape == pixels.shape[:2]
    rgba = Image.fromarray(np.dstack([pixels, pixels[..., 0]]), "RGBA")
    restored = derainer(rgba)
    assert restored.mode == "RGBA"
    assert np.array_equal(np.asarray(restored)[..., 3], pixels[..., 0])
    assert derainer(Image.fromarray(pixels[..., 0])).mode == "L"


@pytest.mark.parametrize(
    "wrong",
    [
        42,
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 3), np.int64),
        np.full((4, 4, 3), np.nan, np.float32),
        torch.zeros(4, 4, 4),
        torch.zeros(3, 4, 4, dtype=torch.int32),
        Image.new("CMYK", (4, 4)),
    ],
    ids=["number", "two channels", "empty", "int64", "nan", "four channels", "integers", "cmyk"],
)
def test_wrong_pictures_are_refused(derainer: Derainer, wrong: Any) -> None:
    with pytest.raises(DerainError):
        derainer(wrong)


@pytest.mark.parametrize(
    "wrong",
    [{"device": "tpu"}, {"precision": "int8"}, {"tile": -1}, {"overlap": -2}, {"tile": 32, "overlap": 32}],
    ids=str,
)
def test_wrong_settings_are_refused(weights: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        derain.load(weights, **wrong)


def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown model 'rainless'"):
        derain.load("rainless")


@pytest.mark.parametrize(
    ("learnt", "ensemble", "quarters"),
    [
        ("flips", True, (0, 2)),
        ("turns", True, (0, 1, 2, 3)),
        ("flips", "turns", (0, 1, 2, 3)),
        ("turns", "flips", (0, 2)),
        (None, True, (0, 2)),
    ],
)
def test_ensemble_is_the_mean_over_the_positions_that_the_weights_have_learnt(
    derainer: Derainer, learnt: str | None, ensemble: bool | str, quarters: tuple[int, ...]
) -> None:
    assert derainer.checkpoint is not None
    facts = {"positions": learnt} if learnt else {}
    checkpoint = replace(derainer.checkpoint, facts=facts)
    derainer = Derainer(Model(derainer.network, checkpoint), Settings(device="cpu"))
    rainy = torch.rand(1, 3, 20, 33)
    plain = [
        torch.rot90(derainer.network(torch.rot90(x, k, (2, 3))), -k, (2, 3)).detach()
        for x in (rainy, rainy.flip(3))
        for k in quarters
    ]
    plain = [x if i < len(quarters) else x.flip(3) for i, x in enumerate(plain)]
    wanted = torch.stack(plain).mean(0).clamp(0, 1)
    both = derainer.with_settings(ensemble=ensemble).restore(rainy, with_maps=True)
    torch.testing.assert_close(both.image, wanted, rtol=0, atol=1e-5)
    assert both.maps["mask"].shape == (1, 1, 20, 33)


def test_half_precision_is_close(derainer: Derainer, pixels: np.ndarray) -> None:
    half = derainer.with_settings(precision="bf16")(pixels).astype(float)
    assert np.abs(half - derainer(pixels)).mean() < 3


@pytest.mark.parametrize("name", bundled_names())
def test_bfloat16_stays_within_half_a_level_where_a_network_says_so(name: str) -> None:
    exact = derain.load(name, device="cpu", precision="float32")
    if not exact.network.spec.safe_in_bfloat16:
        pytest.skip("does not say so")
    with Image.open(SAMPLES / "temple.jpg") as photograph:
        pixels = np.asarray(photograph.convert("RGB").crop((0, 0, 256, 192)))
    away = np.abs(exact.with_settings(precision="bfloat16")(pixels).astype(float) - exact(pixels))
    assert 0 < away.mean() < 0.5


def test_auto_is_bfloat16_for_pictures_of_8_bits_alone(pixels: np.ndarray, tmp_path: Path) -> None:
    auto = derain.load(device="cpu")
    if not is_bfloat16_native(torch.device("cpu")):
        assert auto.dtype_for(8) == torch.float32
        pytest.skip("this processor does not have it")
    exact, half = (auto.with_settings(precision=name) for name in ("float32", "bfloat16"))
    deep, floats = pixels.astype(np.uint16) * 257, pixels.astype(np.float32) / 255
    assert not np.array_equal(exact(pixels), half(pixels))
    assert np.array_equal(auto(pixels), half(pixels))
    assert np.array_equal(auto(deep), exact(deep))
    assert np.array_equal(auto(floats), exact(floats))
    for name, given, wanted in (("few", pixels, half(pixels)), ("deep", deep, exact(deep))):
        write_picture(tmp_path / f"{name}.png", Picture(given))
        assert np.array_equal(read_picture(auto(tmp_path / f"{name}.png")).pixels, wanted)


def test_what_does_not_bear_bfloat16_stays_in_float32() -> None:
    assert Derainer(RainNetwork()).dtype_for(8) == torch.float32


def test_the_largest_tile_that_fits() -> None:
    network = create_network("spanet", width=8)
    assert fitting_tile(network, 300, 300, 1 << 30) is None
    limit = 30_000_000
    side = fitting_tile(network, 9000, 9000, limit)
    assert side is not None
    assert network.activation_bytes(side, side) <= limit < network.activation_bytes(side + 64, side + 64)


def test_a_panorama_needs_no_tiles_however_high_it_is() -> None:
    network = create_network("everyday")
    for height in (8_000, 80_000):
        assert fitting_tile(network, height, 12_512, memory.CPU_BUDGET) is None
        assert network.activation_bytes(height, 12_512) > memory.CPU_BUDGET


TINY = {"widths": (8, 12), "encoder": (1, 1), "decoder": (1,)}
STARVED = """
import resource, sys, torch, derain
d = derain.load(sys.argv[1], tile=0, overlap=200)
rainy = torch.rand(1, 3, 700, 700)
d.restore(rainy[..., :64, :64])
with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (60 << 20), resource.RLIM_INFINITY))
tiled = d.restore(rainy)
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
whole = d.restore(rainy)
assert not whole.note
assert (tiled.image - whole.image).abs().max() < 0.05, (tiled.image - whole.image).abs().max()
print(tiled.note)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory the Linux way")
def test_halves_the_tile_when_memory_runs_out(weights: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    result = subprocess.run(
        [sys.executable, "-c", STARVED, str(weights)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert "memory ran out, continued with tiles of" in result.stdout


@pytest.mark.parametrize(
    "changes",
    [{}, {"tile": 64}, {"tile": 48, "overlap": 40}, {"strength": 0.5, "tile": 32}, {"ensemble": "flips"}],
    ids=str,
)
@pytest.mark.parametrize("name", ["everyday", "spanet"])
def test_bands_of_whole_numbers_give_what_floats_do(
    name: str, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fast, "PIXELS", 64)
    monkeypatch.setattr(fast, "LOWEST", 16)
    network = create_network(name, **({"width": 4} if name == "spanet" else TINY))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    restore = derain.load(network, device="cpu", precision="float32", **changes)
    levels = np.random.default_rng(1).integers(0, 65536, (117, 83, 3), np.uint16)
    keep = torch.rand(1, 1, 117, 83).round()
    for picture in (Picture(levels), Picture((levels[..., :1] >> 8).astype(np.uint8))):
        found = restore.restore_picture(picture, with_maps=True, protect=keep)
        full = restore.with_settings(strength=1.0)
        wanted = full.restore(to_tensor(picture), with_maps=True)
        whole = with_pixels(picture, wanted.image)
        image = blended(to_tensor(picture), to_tensor(whole), restore.settings.strength, keep)
        assert np.array_equal(found.picture.pixels, with_pixels(picture, image).pixels)
        for map_name, values in wanted.maps.items():
            assert np.array_equal(found.maps[map_name].pixels, grey_pixels(values))
        assert found.rain == measure_rain(to_tensor(picture), wanted.image)


def test_a_turned_photograph_comes_back_upright(derainer: Derainer, pixels: np.ndarray) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "A camera"  # turned by a quarter; maker
    turned = Image.fromarray(pixels)
    turned.info["exif"] = exif.tobytes()
    restored = derainer(turned)
    assert restored.size == (pixels.shape[0], pixels.shape[1])
    assert restored.getexif().get(0x0112, 1) == 1
    assert restored.getexif()[0x010F] == "A camera"
    assert np.array_equal(np.asarray(restored), derainer(np.ascontiguousarray(np.rot90(pixels, -1))))


def test_damaged_exif_turns_nothing(derainer: Derainer, pixels: np.ndarray) -> None:
    picture = Image.fromarray(pixels)
    picture.info["exif"] = b"garbage"
    assert np.array_equal(np.asarray(derainer(picture)), derainer(pixels))
    assert derainer.rain(picture) == derainer.rain(pixels)


@pytest.mark.parametrize("mode", ["I;16", "I", "F", "La"])
def test_rain_refuses_pil_pictures_whose_levels_would_be_cut_off(derainer: Derainer, mode: str) -> None:
    with pytest.raises(DerainError, match=f"mode {mode}"):
        derainer.rain(Image.new(mode, (40, 24)))


@pytest.mark.parametrize("path", ["", ".", Path("/")])
def test_a_path_without_a_name_is_no_file(derainer: Derainer, path: str | Path) -> None:
    with pytest.raises(UsageError, match="is not a file"):
        derainer(path)


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy], ids=["array", "tensor"])
def test_floats_of_another_range_are_refused(derainer: Derainer, kind: Any) -> None:
    levels = np.linspace(-3, 250, 300, dtype=np.float32)
    levels = levels.reshape((10, 10, 3) if kind is np.asarray else (3, 10, 10))
    with pytest.raises(DerainError, match="from -3 to 250"):
        derainer(kind(levels))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_tensors_of_any_float_type_are_restored_in_float32(derainer: Derainer, dtype: torch.dtype) -> None:
    rainy = torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(0)).to(dtype)
    found, wanted = derainer.restore(rainy, with_maps=True), derainer.restore(rainy.float(), with_maps=True)
    assert found.image.dtype == torch.float32
    assert torch.equal(found.image, wanted.image)
    assert all(torch.equal(found.maps[name], values) for name, values in wanted.maps.items())
    same_kind = derainer(rainy)
    assert same_kind.dtype == dtype
    assert torch.equal(same_kind, wanted.image.to(dtype))


@pytest.mark.parametrize(
    "rainy", [torch.zeros(1, 3, 8, 8, dtype=torch.uint8), torch.zeros(1, 1, 8, 8), torch.zeros(8, 8)]
)
def test_other_tensors_are_refused(derainer: Derainer, rainy: torch.Tensor) -> None:
    for restore in (derainer, derainer.restore):
        with pytest.raises(DerainError, match=r"\(B, 3, H, W\) in \[0, 1\] is needed"):
            restore(rainy)


def test_files_are_not_replaced_unasked(derainer: Derainer, pixels: np.ndarray, tmp_path: Path) -> None:
    rainy, dry = tmp_path / "a.png", tmp_path / "b.png"
    write_picture(rainy, Picture(pixels))
    dry.write_bytes(b"something else")
    with pytest.raises(UsageError, match="overwrite=True"):
        derainer(rainy, output=dry)
    assert dry.read_bytes() == b"something else"
    assert derainer(rainy, output=dry, overwrite=True) == dry
    assert np.array_equal(read_picture(dry).pixels, derainer(pixels))
    with pytest.raises(UsageError, match="replace its source"):
        derainer(rainy, output=rainy, overwrite=True)


@pytest.mark.parametrize("pictures", [0, 1, 2])
def test_a_folder_is_no_file(derainer: Derainer, pixels: np.ndarray, tmp_path: Path, pictures: int) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(pictures):
        write_picture(folder / f"{number}.png", Picture(pixels))
    for restore in (derainer, derainer.video):
        with pytest.raises(UsageError, match=r"in: is a folder; .*restore_files"):
            restore(folder)
    assert len(list(tmp_path.rglob("*"))) == 1 + pictures


def test_a_video(derainer: Derainer, tmp_path: Path) -> None:
    rainy = write_clip(tmp_path / "a.mkv", list(moving_scene(3, 16, 24)), codec="ffv1", pixel_format="bgr0")
    assert derainer(rainy) == tmp_path / "a-derained.mkv"
    wanted = [derainer(frame) for frame in content(rainy).frames]
    result = derainer.video(rainy, tmp_path / "b.mkv", codec="ffv1", frame_by_frame=True)
    assert (result.frames, result.shortfall) == (3, "")
    for restored, frame in zip(content(tmp_path / "b.mkv").frames, wanted, strict=True):
        assert np.abs(restored.astype(int) - frame).max() <= 2
    with pytest.raises(UsageError, match="overwrite=True"):
        derainer.video(rainy)


def test_a_network_in_hand(pixels: np.ndarray) -> None:
    network = create_network("spanet", width=4)
    network.train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    restore = derain.load(network, device="cpu")
    restored = restore(pixels)
    assert restore.name == "spanet"
    assert network.training
    assert all(tensor.requires_grad for tensor in network.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    with torch.no_grad():
        network.conv_out[0].weight.zero_()
    assert np.array_equal(restore(pixels), restored)  # as it was when it was given
    with pytest.raises(DerainError, match=r"derain\.RainNetwork"):
        derain.load(torch.nn.Identity())


def test_other_settings_leave_a_derainer_as_it_is(derainer: Derainer, pixels: np.ndarray) -> None:
    restored, identity = derainer(pixels), derainer.identity
    other = derainer.with_settings(precision="bf16", tile=32)
    assert (other.settings.precision, other.settings.tile) == ("bfloat16", 32)
    assert other.network is derainer.network
    assert other.identity != identity == derainer.identity
    assert np.array_equal(derainer(pixels), restored)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a second device")
def test_another_device_gets_a_copy(derainer: Derainer) -> None:
    on_cpu = derainer.with_settings(device="cpu")
    assert on_cpu.with_settings(device="cuda").device.type == "cuda"
    assert {p.device.type for p in on_cpu.network.parameters()} == {"cpu"}


def test_many_pictures_at_once_are_cut_by_memory(derainer: Derainer, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = torch.rand(5, 3, 16, 24)
    together = derainer.restore(batch, with_maps=True)
    sizes, run = [], derainer.network.outputs
    one = derainer.network.activation_bytes(16, 24)
    monkeypatch.setattr("derain.restore.memory.budget", lambda device: 2 * one)
    monkeypatch.setattr(derainer.network, "outputs", lambda x: sizes.append(len(x)) or run(x), raising=False)
    steps: list[tuple[int, int]] = []
    again = derainer.restore(batch, with_maps=True, progress=lambda done, total: steps.append((done, total)))
    assert sizes == [2, 2, 1]
    assert steps == [(1, 3), (2, 3), (3, 3)]
    torch.testing.assert_close(again.image, together.image, rtol=0, atol=1e-5)
    assert again.maps["mask"].shape == (5, 1, 16, 24)
