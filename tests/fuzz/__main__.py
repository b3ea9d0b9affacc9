"""The long run: thousands of broken inputs of each kind, the same in every run.

python -m tests.fuzz --report report.jsonl [KIND ...] [--count N] [--first N]

Inputs are used in a process of its own, which is ended and replaced when one hangs or kills it. Those that
came out wrong are kept beside the report.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fuzz.kinds import KINDS
from fuzz.trial import SLOW, Kind, Verdict, judged

HANGS = 1.5 * SLOW  # seconds of processors
WAITS = 3600  # seconds by the clock, as other work may go on beside it


def work(kind: Kind, first: int, end: int, report: Path) -> None:
    """Judges inputs one after the other and adds a line for each to the report."""
    with report.open("a") as file, kind.around(), os.fdopen(os.dup(2), "w") as traces:
        faulthandler.register(signal.SIGPROF, file=traces, chain=True)  # and then it ends
        for number in range(first, end):
            with tempfile.TemporaryDirectory() as folder:
                signal.setitimer(signal.ITIMER_PROF, HANGS)
                faulthandler.dump_traceback_later(WAITS, exit=True, file=traces)
                verdict = judged(kind, number, Path(folder))
                faulthandler.cancel_dump_traceback_later()
                signal.setitimer(signal.ITIMER_PROF, 0)
                if not verdict.is_right:
                    shutil.copytree(folder, kept(report, kind, number), symlinks=True, dirs_exist_ok=True)
            file.write(json.dumps({"kind": kind.name, **asdict(verdict)}) + "\n")
            file.flush()


def kept(report: Path, kind: Kind, number: int) -> Path:
    return report.with_suffix("") / f"{kind.name}-{number}"


def run(kind: Kind, first: int, end: int, report: Path) -> list[Verdict]:
    """Judges all inputs, whatever becomes of the process that uses them."""
    at = first
    while at < end:
        command = [sys.executable, "-m", "tests.fuzz", kind.name, "--report", str(report)]
        command += ["--first", str(at), "--count", str(end - at), "--work"]
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(
                command, capture_output=True, text=True, env={**os.environ, "TMPDIR": folder}
            )
            at = max([first - 1, *(v.number for v in verdicts(kind, report) if first <= v.number < end)]) + 1
            if at < end:
                verdict = Verdict(at, "died", f"{done.returncode}: {done.stderr[-3000:]}", 0, 0)
                for used in Path(folder).glob("tmp*"):
                    if (used / "in").is_dir():
                        shutil.copytree(used, kept(report, kind, at), symlinks=True, dirs_exist_ok=True)
                with report.open("a") as file:
                    file.write(json.dumps({"kind": kind.name, **asdict(verdict)}) + "\n")
                at += 1
    return [verdict for verdict in verdicts(kind, report) if first <= verdict.number < end]


def verdicts(kind: Kind, report: Path) -> list[Verdict]:
    if not report.exists():
        return []
    lines = [json.loads(line) for line in report.read_text().splitlines()]
    return [
        Verdict(**{k: v for k, v in line.items() if k != "kind"})
        for line in lines
        if line["kind"] == kind.name
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(KINDS)}; all by default")
    parser.add_argument("--report", type=Path, required=True, help="gets a line for each input")
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--count", type=int, help="of inputs; by default as many as the kind asks for")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    right = True
    for name in given.kinds or KINDS:
        kind = KINDS[name]
        end = given.first + (kind.count if given.count is None else given.count)
        if given.work:
            work(kind, given.first, end, given.report)
            continue
        found = run(kind, given.first, end, given.report)
        counts = ", ".join(
            f"{count} {outcome}" for outcome, count in Counter(v.outcome for v in found).items()
        )
        slowest, largest = max(v.seconds for v in found), max(v.megabytes for v in found)
        print(f"{name}: {counts}; at most {slowest:.1f} s and {largest:,.0f} MB", flush=True)
        right = right and all(verdict.is_right for verdict in found)
    sys.exit(0 if right else 1)


if __name__ == "__main__":
    main()
