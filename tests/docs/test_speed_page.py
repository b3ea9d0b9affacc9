"""The page of speeds, which a script writes, names every network that there is."""

from __future__ import annotations

import re

from derain.methods import network_names
from docs.script import script

PAGE = script("speed_page").PAGE.read_text("utf-8")


def test_every_network_was_measured() -> None:
    """After a new network: python scripts/speed_page.py"""
    measured = re.findall(r"^\| `(\S+)` \| [\d.]+ \|", PAGE, re.MULTILINE)
    assert set(measured) == set(network_names())
