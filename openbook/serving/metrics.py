"""Counts and times in the text format of Prometheus: of requests, never of what is in them."""

from __future__ import annotations

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # the variable by which several processes count in files of one folder

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """One registry a server, so that two in one process do not meet."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "openbook_requests", "Requests answered.", ["route", "method", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "openbook_request_seconds",
            "Seconds from the head of a request to the last byte of its answer.",
            ["route"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._answers = Counter(
            "openbook_answers", "Answers of the model, by how they ended.", ["mode", "end"], registry=self._registry
        )
        self._tokens = Counter("openbook_tokens", "Tokens read and written.", ["kind"], registry=self._registry)
        self._running = Gauge(
            "openbook_running",
            "Requests that compute now.",
            ["gate"],
            registry=self._registry,
            multiprocess_mode="livesum",
        )
        self._waiting = Gauge(
            "openbook_waiting",
            "Requests that wait for a place.",
            ["gate"],
            registry=self._registry,
            multiprocess_mode="livesum",
        )

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        self._requests.labels(route, method, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def answer(self, mode: str, end: str, prompt_tokens: int | None, answer_tokens: int | None) -> None:
        self._answers.labels(mode, end).inc()
        self._tokens.labels("read").inc(prompt_tokens or 0)
        self._tokens.labels("written").inc(answer_tokens or 0)

    def gate(self, name: str, running: int, waiting: int) -> None:
        self._running.labels(name).set(running)
        self._waiting.labels(name).set(waiting)

    def text(self) -> bytes:
        """Of this process, or of all that count in one folder."""
        if FOLDER not in os.environ:
            return generate_latest(self._registry)
        together = CollectorRegistry()
        MultiProcessCollector(together)  # type: ignore[no-untyped-call]
        return generate_latest(together)
