"""Every file that broke this program or others like it, given to the command line: its result or one line."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from command_line import derain_here
from derain.pictures import Picture, read_picture, write_picture
from derain.pictures.kinds import VIDEO_KINDS
from derain.pictures.video import VideoReader
from derain.pictures.video_facts import video_facts

CASES = Path(__file__).resolve().parents[3] / "shared" / "cases"
NO_PROFILE = "left out: a colour profile that cannot be read"
ITSELF = r"line \d+: not YAML \(a value that contains itself\)\."
NOT_OF_ITS_TYPE = r"not YAML \(a value does not fit its type: .{1,90}\)\."
NO_PICTURES = r"'data\.clean' is not given; set it to a folder of clean pictures\."

# What is said of the files of which a result is made.
RESTORED = {
    "formats/alpha_prores.mov": "left out: 12 bits per sample (prores keeps 10)",
    "formats/alpha_vp9.webm": "",
    "formats/bad_crc_text.png": "left out: a tEXt chunk with a wrong checksum",
    "formats/cam.mts": "written as cam.mkv",
    "formats/cicp_pq16.png": "",
    "formats/cover.mkv": "",
    "formats/cover.mp4": "",
    "formats/deep12.mkv": "",
    "formats/dvd.mpg": "written as dvd.mkv",
    "formats/flat.png": "",
    "formats/float32.tif": "left out: 32-bit floating point (16 bits were read)",
    "formats/gamma_linear.png": "",
    "formats/grey12.tif": "left out: 12 bits per channel (became 16)",
    "formats/hdr10.mp4": "",
    "formats/hold_end.mp4": "",
    "formats/interlaced.mp4": "was interlaced, deinterlaced to one picture per frame (bwdif)",
    "formats/loop3.gif": "",
    "formats/lossless.webp": "",
    "formats/orient6_grey.tif": "",
    "formats/orient6_rgba.tif": "",
    "formats/p3_nclx.avif": "",
    "formats/phone_thumb.jpg": "",
    "formats/photo.jfif": "written as photo.jpg",
    "formats/ramp_mjpeg.avi": "",
    "formats/raw_profile_exif.png": "",
    "formats/rot90.mp4": "",
    "formats/slow.mp4": "",
    "formats/spherical.mp4": "",
    "formats/text.png": "",
    "formats/thumbnail_page.tif": "left out: its smaller copies",
    "formats/tmcd.mov": "",
    "formats/transparent.gif": "",
    "formats/twelve.jpg": "left out: 12 bits per channel (JPEG holds 8)",
    "formats/ultrahdr.jpg": "left out: its HDR gain map",
    "formats/xmp_iptc.jpg": "",
    "pictures/10406-in.webp": "",
    "pictures/13548-in.tif": NO_PROFILE,
    "pictures/15036-in.tif": NO_PROFILE,
    "pictures/15995-in.png": "",
    "pictures/3236-in.tif": NO_PROFILE,
    "pictures/8083-in.webp": "",
    "pictures/8833-in.tif": f"{NO_PROFILE}, its layers",
    "pictures/9209-in.jpg": "",
    "pictures/9888-in.tif": NO_PROFILE,
    "pictures/tiff_icc_longs.tif": NO_PROFILE,
    "pictures/tiff_icc_short.tif": NO_PROFILE,
    "pictures/tiff_xres_ascii.tif": "",
}
# Why there is none of the others.
FAILED = {
    "formats/zeros_behind.jpg": r"a JPEG file that is damaged or cut short \(cut off before its end\)\.",
    "pictures/jpeg_300_scans.jpg": r"stores 36 megapixels in 112 or more scans, which takes too long .*\.",
    "pictures/tiff_5k_ifds.tif": r"holds 1,000 or more frames or pages; save each as a picture, .*\.",
    "videos/video-timebase.avi": r"states 11,206,666 frames per second, which is not plausible\.",
}
# Of checkpoints: None where the weights are there.
MODELS = {
    "checkpoints/complex.pth": r"conv_in\.0\.weight is of type complex64; plain tensors are needed\.",
    "checkpoints/dag.pth": r"no named tensors found; the first keys are a, b\.",
    "checkpoints/expanded_spanet_4000.pth": r"conv_in\.0\.weight repeats its values; .* are needed\.",
    "checkpoints/fp8.pth": r"conv_in\.0\.weight is of type float8_e4m3fn; plain tensors are needed\.",
    "checkpoints/loop.onnx": r"refused, because it has a loop that may never end\.",
    "checkpoints/sparse.pth": r"conv_in\.0\.weight is sparse; plain tensors are needed\.",
    "formats/compiled.pth": None,
    "formats/lightning_net.ckpt": None,
    "formats/namespace.pth": None,
    "formats/np_scalar.pth": None,
    "formats/swa.pth": None,
    "formats/thop_all.pth": None,
}
RECIPES = {
    "recipes/105-in.yaml": r"unknown protocol '2001-99-99'\. Known: .*\.",
    "recipes/11-in.yaml": ITSELF,
    "recipes/116-in.yaml": ITSELF,
    "recipes/135-in.yaml": NOT_OF_ITS_TYPE,
    "recipes/14-in.yaml": ITSELF,
    "recipes/15-in.yaml": NOT_OF_ITS_TYPE,
    "recipes/168-in.yaml": ITSELF,
    "recipes/191-in.yaml": NO_PICTURES,
    "recipes/217-in.yaml": r"'save_every': give a whole number, .*\.",
    "recipes/226-in.yaml": ITSELF,
    "recipes/241-in.yaml": NO_PICTURES,
    "recipes/254-in.yaml": NO_PICTURES,
    "recipes/336-in.yaml": NOT_OF_ITS_TYPE,
    "recipes/349-in.yaml": NO_PICTURES,
    "recipes/399-in.yaml": r"'loss\.vgg' is not given; udr_s2former: vgg: .*\.",
    "recipes/417-in.yaml": r"line \d+: not YAML \(nested deeper than 40 levels\)\.",
    "recipes/487-in.yaml": NOT_OF_ITS_TYPE,
    "recipes/583-in.yaml": NO_PICTURES,
    "recipes/657-in.yaml": NOT_OF_ITS_TYPE,
    "recipes/682-in.yaml": NO_PICTURES,
    "recipes/recipe-alias-bomb.yaml": r"line \d+: not YAML \(more than 20000 values\)\.",
    "recipes/recipe-cycle.yaml": ITSELF,
    "recipes/recipe-seed.yaml": r"'seed': give a number below 9223372036854775808, not 9{20}\.",
    "recipes/recipe-timestamp.yaml": r"photos: no such folder\.",
}
pytestmark = pytest.mark.skipif(
    not CASES.is_dir(), reason="the folder of files that broke the program is not beside the project"
)


@dataclass(frozen=True)
class Done:
    """What `derain run` made of all pictures and clips at once.

    Attributes:
        code: exit code.
        rows: what is said of each source.
        output: the folder of the results.
        error: what went to standard error.
    """

    code: int
    rows: dict[Path, dict[str, str]]
    output: Path
    error: str


@pytest.fixture(scope="module")
def done(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Done:
    output = tmp_path_factory.mktemp("dry")
    given = [CASES / name for name in ("formats", "pictures", "videos")]
    ran = derain_here("run", *given, "-o", output, "--model", weights, "--json")
    report = json.loads(ran.stdout)
    rows = {Path(row["source"]): row for kind in ("pictures", "videos") for row in report[kind]}
    return Done(ran.returncode, rows, output, ran.stderr)


def test_no_file_is_without_a_test() -> None:
    files = {path.relative_to(CASES).as_posix() for path in CASES.rglob("*") if path.is_file()}
    tested = {*RESTORED, *FAILED, *MODELS, *RECIPES}
    assert files - tested == {"README.md"}
    assert tested - files == set()


def test_one_file_stops_no_other(done: Done) -> None:
    assert done.code == 1
    assert {path.relative_to(CASES).as_posix() for path in done.rows} == {*RESTORED, *FAILED}
    results = [path for path in done.output.rglob("*") if path.is_file()]
    assert len(results) == len(RESTORED)
    assert not [path for path in results if path.name.startswith(".")]
    # A machine that takes over a minute says how far it is.
    lines = [line for line in done.error.splitlines() if not line.startswith("restoring: ")]
    assert all(line.startswith(("derain: /", f"{CASES}")) for line in lines)


@pytest.mark.parametrize("name", RESTORED)
def test_what_can_be_restored_is(done: Done, name: str) -> None:
    row = done.rows[CASES / name]
    assert (row["status"], row["note"]) == ("restored", RESTORED[name])
    target = Path(row["target"])
    if target.suffix in VIDEO_KINDS:
        assert len(list(VideoReader(video_facts(target)))) == len(
            list(VideoReader(video_facts(CASES / name)))
        )
    else:
        assert read_picture(target).size == read_picture(CASES / name).size


@pytest.mark.parametrize("name", FAILED)
def test_what_cannot_be_is_refused_in_one_line(done: Done, name: str) -> None:
    row = done.rows[CASES / name]
    assert row["status"] == "failed"
    assert re.fullmatch(f"{re.escape(str(CASES / name))}: {FAILED[name]}", row["note"])
    assert not Path(row["target"]).exists()


@pytest.mark.parametrize("name", MODELS)
def test_models(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_picture(tmp_path / "a.png", Picture(np.full((16, 24, 3), 120, np.uint8)))
    target, words = tmp_path / "b.png", MODELS[name]
    ran = derain_here("run", tmp_path / "a.png", "--model", CASES / name, "-o", target)
    error = ran.stderr + capfd.readouterr().err
    if words is None:
        assert (ran.returncode, error) == (0, "")
        assert read_picture(target).size == (16, 24)
    else:
        assert ran.returncode == 1
        assert re.fullmatch(f"derain: {re.escape(str(CASES / name))}: {words}\n", error)
        assert not target.exists()


@pytest.mark.parametrize("name", RECIPES)
def test_recipes(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ran = derain_here("train", CASES / name, "-o", "run", cwd=tmp_path)
    assert (ran.returncode, ran.stdout) == (2, "")
    place = re.escape(str(CASES / name))
    assert re.fullmatch(rf"derain: ({place}: )?{RECIPES[name]}\n", ran.stderr + capfd.readouterr().err)
    assert not list(tmp_path.iterdir())
