"""Prometheus counts and times of requests and answers, never their content. See docs/operations.md."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from openbook.core.records import Answer, Timings
from openbook.serving.concurrency import Places

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """Counts and times of one server; two in one process are counted separately."""

    def __init__(self) -> None:
        own = self._registry = CollectorRegistry()
        self._requests = Counter("openbook_requests", "Requests answered.", ["route", "method", "status"], registry=own)
        about = "Seconds from the head of a request to the last byte of its answer."
        self._seconds = Histogram("openbook_request_seconds", about, ["route"], buckets=_BUCKETS_S, registry=own)
        about = "Answers of the model, by how they ended."
        self._answers = Counter("openbook_answers", about, ["mode", "end"], registry=own)
        about = "Seconds of an answer: retrieve, first token (from when reading begins), read."
        self._steps = Histogram("openbook_answer_seconds", about, ["step"], buckets=_BUCKETS_S, registry=own)
        self._tokens = Counter("openbook_tokens", "Tokens read and written.", ["kind"], registry=own)
        # The label is named gate since 0.1.0; dashboards use it.
        self._running = Gauge("openbook_running", "Requests that compute now.", ["gate"], registry=own)
        self._waiting = Gauge("openbook_waiting", "Requests that wait for a place.", ["gate"], registry=own)

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        self._requests.labels(route, method, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def answer(self, mode: str, answer: Answer) -> None:
        cancelled, times = answer.finish_reason == "cancelled", answer.timings or Timings()
        self._answers.labels(mode, "abstained" if answer.declined and not cancelled else answer.finish_reason).inc()
        self._tokens.labels("read").inc(answer.prompt_tokens or 0)
        self._tokens.labels("written").inc(answer.answer_tokens or 0)
        for step, seconds in (
            ("retrieve", times.retrieve_s),
            ("first_token", times.first_token_s),
            ("read", times.read_s),
        ):
            if seconds is not None and not cancelled:
                self._steps.labels(step).observe(seconds)

    def watch(self, name: str, places: Places) -> None:
        self._running.labels(name).set_function(lambda: places.running)
        self._waiting.labels(name).set_function(lambda: places.waiting)

    def text(self) -> bytes:
        return generate_latest(self._registry)
