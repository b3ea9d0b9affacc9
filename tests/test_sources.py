"""Where authors publish: the table's form, and that it speaks of what there is."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from pathlib import Path

import pytest

import derain
from command_line import derain as command
from derain.data.layouts import SETS
from derain.methods import all_methods, network_names
from derain.sources import Source, all_sources, published_by

ROOT = Path(__file__).resolve().parents[1]
METHODS = {method.name for method in all_methods()}


@pytest.mark.parametrize("source", all_sources(), ids=lambda s: f"{s.of}: {s.what}")
def test_an_entry_has_its_form(source: Source) -> None:
    assert source.of in METHODS | {s.name for s in SETS}
    is_paper = re.fullmatch(r"paper: [\w ,.-]+ \d{4}", source.what) is not None
    assert re.fullmatch(r"https://[a-z0-9.-]+(/[\w./-]*)?", source.address) or is_paper > bool(source.address)
    assert is_paper or re.fullmatch(r"[a-z][\w ,;'-]+", source.what)
    assert set(source.networks) <= {n for n, (a, _) in network_names().items() if n.startswith(source.of)}
    assert re.fullmatch(r"[a-z0-9]{4}|", source.code)
    assert bool(source.code) == ("pan.baidu.com" in source.address)


def test_every_set_has_a_source_and_no_entry_stands_twice() -> None:
    for s in SETS:
        assert published_by(s.name)[0].address or published_by(s.name)[0].what.startswith("paper: ")
        assert bool(s.address) == any(source.address for source in published_by(s.name))
    entries = [(s.of, s.what, s.networks) for s in all_sources()]
    assert len(entries) == len(set(entries))


def test_entries_of_a_network_leave_out_those_of_its_sister() -> None:
    small = published_by("nerd_rain", "nerd_rain-s")
    assert sum(s.what == "weights for Rain200L" for s in small) == 1
    assert sum(s.what == "weights for Rain200L" for s in published_by("nerd_rain")) == 2


def test_what_is_stated_stands_on_the_authors_pages(shared: Path) -> None:
    """Addresses, codes, file names and sizes, as copied from there into the specifications."""
    copied = (shared / "specs" / "sources.md").read_text("utf-8")
    all_specs = "\n".join(page.read_text("utf-8") for page in (shared / "specs").glob("*.md"))
    for source in filter(lambda source: source.address, all_sources()):
        bare = source.address.removeprefix("https://").removeprefix("www.")
        name = bare.rsplit("/", 1)[-1]
        if "pan.baidu.com" in bare:
            assert f"{name} ({source.code})" in copied, source
        elif "drive.google.com" in bare:
            data = source.what.rpartition(" ")[2].removesuffix("-Data").replace("pictures", "results")
            line = next(line for line in copied.splitlines() if f"{data} {name}" in line)
            assert line.startswith("| NeRD-Rain-S ") == (source.networks == ("nerd_rain-s",)), source
        else:
            assert (f"arXiv {name}" if "arxiv.org" in bare else bare) in copied, source
        assert source.file in all_specs, source
        if "about" in source.size:
            assert all(part in copied for part in re.findall(r"\d+ [GM]B", source.size)), source


def test_the_copy_of_the_weights_is_the_one_described(shared: Path) -> None:
    content = (shared / "oracles" / "spanet" / "latest.pth").read_bytes()
    page = (ROOT / "docs" / "sources.md").read_text("utf-8")
    assert f"{len(content):,} bytes" in page
    assert hashlib.sha256(content).hexdigest() in page


SAMPLES = Path(__file__).resolve().parents[1] / "samples"


def test_a_model_without_weights_says_where_they_are() -> None:
    with pytest.raises(
        derain.UsageError, match=r"known, but no weights come with the package.*DRSformer"
    ) as error:
        derain.load("drsformer")
    assert "unknown" not in str(error.value)
    done = command("run", SAMPLES, "-o", "out", "--model", "udr_s2former")
    assert done.returncode == 2
    assert "github.com/Ephemeral182" in done.stderr


def test_the_command_line_shows_them() -> None:
    shown = command("models", "drsformer").stdout
    assert "https://github.com/cschenxiang/DRSformer" in shown
    rows = json.loads(command("data", "sources", "--json").stdout)
    assert [row["set"] for row in rows] == [s.name for s in SETS]
    one = command("data", "sources", "spa-data").stdout
    assert "1,000 pairs" in one
    assert "stevewongv.github.io" in one
    assert "Did you mean 'Rain200L'" in command("data", "sources", "rain200").stderr


def test_the_page_says_what_the_data_say() -> None:
    """After a change: python scripts/sources_page.py"""
    spec = importlib.util.spec_from_file_location("sources_page", ROOT / "scripts" / "sources_page.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.PAGE.read_text("utf-8") == script.page()
