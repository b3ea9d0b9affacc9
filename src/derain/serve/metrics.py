"""Figures for Prometheus, in its text format (version 0.0.4)."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import psutil

from derain.serve.jobs import Store

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# Upper bounds of the histograms, in seconds.
ANSWER_BOUNDS = (0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0)
JOB_BOUNDS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)


class Histogram:
    """Durations by label; not thread-safe by itself."""

    def __init__(self, bounds: Sequence[float]) -> None:
        """
        Args:
            bounds: the upper bounds in seconds, increasing.
        """
        self._bounds = bounds
        self._counts: defaultdict[str, list[int]] = defaultdict(lambda: [0] * (len(bounds) + 1))
        self._sums: defaultdict[str, float] = defaultdict(float)

    def add(self, labels: str, seconds: float) -> None:
        """Counts a duration.

        Args:
            labels: as they are written, e.g. 'route="/health"'.
            seconds: the duration.
        """
        place = next((i for i, bound in enumerate(self._bounds) if seconds <= bound), len(self._bounds))
        self._counts[labels][place] += 1
        self._sums[labels] += seconds

    def lines(self, name: str) -> list[str]:
        """The samples: how many were within each bound, their sum and their number."""
        found = []
        for labels, counts in sorted(self._counts.items()):
            total = 0
            for bound, count in zip((*self._bounds, "+Inf"), counts, strict=True):
                total += count
                found.append(f'{name}_bucket{{{labels},le="{bound}"}} {total}')
            found.append(f"{name}_sum{{{labels}}} {self._sums[labels]}")
            found.append(f"{name}_count{{{labels}}} {total}")
        return found


class Metrics:
    """What happened since the start; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._responses: Counter[int] = Counter()
        self._answers, self._durations = Histogram(ANSWER_BOUNDS), Histogram(JOB_BOUNDS)
        self._jobs: Counter[str] = Counter({"done": 0, "failed": 0, "cancelled": 0})
        self._seconds = 0.0
        self._uploaded = 0

    def responded(self, method: str, route: str, status: int, seconds: float) -> None:
        """Counts a response.

        Args:
            method: the request's method.
            route: the path with names in place of its variable parts; "" for unknown paths.
            status: the HTTP status.
            seconds: the time until the response began.
        """
        with self._lock:
            self._responses[status] += 1
            self._answers.add(f'method="{method}",route="{route}"', seconds)

    def uploaded(self, size: int) -> None:
        """Counts an upload.

        Args:
            size: the size of the accepted file, in bytes.
        """
        with self._lock:
            self._uploaded += size

    def job_ended(self, how: str, seconds: float) -> None:
        """Counts a job that has ended.

        Args:
            how: done, failed or cancelled.
            seconds: the time spent working on it.
        """
        with self._lock:
            self._jobs[how] += 1
            self._seconds += seconds
            self._durations.add(f'outcome="{how}"', seconds)

    def render(self, store: Store, ready: bool) -> str:
        """All figures, as Prometheus reads them.

        Args:
            store: tells how many jobs and bytes it holds now.
            ready: whether all models are loaded.
        """
        resident = psutil.Process().memory_info().rss
        with self._lock:
            responses = {f'{{status="{status}"}}': count for status, count in sorted(self._responses.items())}
            jobs = {f'{{outcome="{how}"}}': count for how, count in self._jobs.items()}
            return "\n".join([
                *_plain("derain_http_responses_total", "counter", "Responses by HTTP status.", responses),
                *_head("derain_http_answer_seconds", "histogram", "Time until a response began."),
                *self._answers.lines("derain_http_answer_seconds"),
                *_plain("derain_jobs_total", "counter", "Jobs that ended, by outcome.", jobs),
                *_plain("derain_job_seconds_total", "counter", "Time spent on jobs.", {"": self._seconds}),
                *_head("derain_job_seconds", "histogram", "Time spent on a job."),
                *self._durations.lines("derain_job_seconds"),
                *_plain("derain_upload_bytes_total", "counter", "Bytes of accepted uploads.",
                        {"": self._uploaded}),
                *_plain("derain_ready", "gauge", "1 when all models are loaded.", {"": int(ready)}),
                *_plain("derain_jobs_waiting", "gauge", "Jobs in the queue.", {"": store.waiting}),
                *_plain("derain_jobs_running", "gauge", "Jobs being processed.", {"": store.running}),
                *_plain("derain_stored_bytes", "gauge", "Bytes of kept uploads and results.",
                        {"": store.stored}),
                *_plain("process_resident_memory_bytes", "gauge", "Resident memory.", {"": resident}),
                "",
            ])  # fmt: skip


def _head(name: str, kind: str, text: str) -> list[str]:
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]


def _plain(name: str, kind: str, text: str, values: Mapping[str, float]) -> list[str]:
    return [*_head(name, kind, text), *(f"{name}{labels} {value}" for labels, value in values.items())]
