"""Counters for Prometheus, in its text format (version 0.0.4)."""

from __future__ import annotations

import threading
from collections import Counter

import psutil

from derain.serve.jobs import Store

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """What happened since the start; used from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._responses: Counter[int] = Counter()
        self._jobs: Counter[str] = Counter({"done": 0, "failed": 0, "cancelled": 0})
        self._seconds = 0.0
        self._uploaded = 0

    def responded(self, status: int) -> None:
        with self._lock:
            self._responses[status] += 1

    def uploaded(self, size: int) -> None:
        with self._lock:
            self._uploaded += size

    def job_ended(self, how: str, seconds: float) -> None:
        with self._lock:
            self._jobs[how] += 1
            self._seconds += seconds

    def render(self, store: Store) -> str:
        """All figures, with what the store holds now."""
        resident = psutil.Process().memory_info().rss
        with self._lock:
            groups: list[tuple[str, str, str, dict[str, float]]] = [
                (
                    "derain_http_responses_total",
                    "counter",
                    "Responses by HTTP status.",
                    {f'{{status="{status}"}}': count for status, count in sorted(self._responses.items())},
                ),
                (
                    "derain_jobs_total",
                    "counter",
                    "Jobs that ended, by outcome.",
                    {f'{{outcome="{how}"}}': count for how, count in self._jobs.items()},
                ),
                ("derain_job_seconds_total", "counter", "Time spent on jobs.", {"": self._seconds}),
                ("derain_upload_bytes_total", "counter", "Bytes of accepted uploads.", {"": self._uploaded}),
                ("derain_jobs_waiting", "gauge", "Jobs in the queue.", {"": store.waiting}),
                ("derain_jobs_running", "gauge", "Jobs that are worked on.", {"": store.running}),
                ("derain_stored_bytes", "gauge", "Bytes of kept uploads and results.", {"": store.stored}),
                ("process_resident_memory_bytes", "gauge", "Resident memory.", {"": resident}),
            ]
        lines = []
        for name, kind, text, values in groups:
            lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
            lines += [f"{name}{labels} {value}" for labels, value in values.items()]
        return "\n".join(lines) + "\n"
