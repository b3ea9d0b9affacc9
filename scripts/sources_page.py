"""Writes docs/sources.md from src/derain/sources.yaml: python scripts/sources_page.py"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from derain.data.layouts import SETS
from derain.methods import all_methods
from derain.sources import NO_ADDRESS, Source, published_by

PAGE = Path(__file__).resolve().parents[1] / "docs" / "sources.md"
HEAD = """# Where weights and sets come from

Some weights come with the package; only their authors distribute all other weights and all data sets.
These are the addresses that the authors of the networks give on their own pages. None of them was visited
here, and they may change. Of some sets only the paper is known.

```sh
derain models nerd_rain-s       # one network: figures and sources
derain data sources SPA-Data    # one set
```

## After the download

- **Weights**: `derain info FILE` shows the network, its size and the training step, without
  running any code in the file; `derain run --model FILE` uses it. A file that is incomplete, or of an unknown
  network, is an error that says so.
- **Sets**: `derain data check FOLDER` recognises the set, counts the pairs of each split against the numbers
  below, and names what is missing, unpaired or unreadable.
- The authors state no checksums. A SHA-256 below is that of the copy that this project compares itself with.
- Where no licence is listed below, none is known: check the authors' page before you share or sell anything.
"""


def page() -> str:
    """The whole page as Markdown."""
    parts = [HEAD, "## Networks\n"]
    for method in all_methods():
        if published_by(method.name):
            parts += [f"### {method.title}\n", _table(published_by(method.name))]
    parts.append("## Sets\n")
    for s in SETS:
        sizes = ", ".join(f"{split} {size:,}" for split, size in s.sizes.items())
        parts += [
            f"### {s.name}\n",
            f"Pairs: {sizes}. Scored by `{s.protocol}`.\n",
            _table(published_by(s.name)),
        ]
    return "\n".join(parts)


def _table(sources: Iterable[Source]) -> str:
    rows = ["| what | where | |", "| --- | --- | --- |"]
    for source in sources:
        networks = f" of `{'`, `'.join(source.networks)}`" if source.networks else ""
        where = f"<{source.address}>" if source.address else NO_ADDRESS
        rows.append(f"| {source.what}{networks} | {where} | {source.details} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
