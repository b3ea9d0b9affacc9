"""The long run: every series of kills with all its moments.

python -m tests.kills [SERIES ...]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from kills.series import SERIES, run, two_at_once


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.kills", description=__doc__)
    parser.add_argument("series", nargs="*", metavar="SERIES", help=f"of {', '.join(SERIES)}; all by default")
    parser.add_argument("--moments", type=int, help="by default as many as the series asks for")
    given, right = parser.parse_args(), True
    for name in given.series or SERIES:
        series = SERIES[name]
        moments = series.moments if given.moments is None else given.moments
        with tempfile.TemporaryDirectory() as folder:
            problems = run(series, Path(folder), moments)
        with tempfile.TemporaryDirectory() as folder:
            problems += two_at_once(series, Path(folder))
        print(f"{name}: killed at {moments} moments, two at once: {len(problems)} problems", flush=True)
        for problem in problems:
            print(f"  {problem}", flush=True)
        right = right and not problems
    sys.exit(0 if right else 1)


if __name__ == "__main__":
    main()
