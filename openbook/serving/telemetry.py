"""Counts and times for Prometheus, and spans for OpenTelemetry: of requests and answers, never of what is in them.

Spans are `ask`, and in it `retrieve`, `read` and `cite`. They have times, counts and digests, never a question, a text, or
the name of a document. A request that comes with a trace (W3C `traceparent`) is part of it. See docs/operations.md.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from opentelemetry.trace import Span, SpanKind, Status, StatusCode, TracerProvider, get_tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from openbook import __version__
from openbook.errors import needs_extra
from openbook.records import Answer, Timings
from openbook.serving.concurrency import Places

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider as SdkProvider

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")

_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_PROPAGATOR = TraceContextTextMapPropagator()


class Metrics:
    """Each server has a registry of its own, so that two in one process are counted apart."""

    def __init__(self) -> None:
        own = self._registry = CollectorRegistry()
        self._requests = Counter("openbook_requests", "Requests answered.", ["route", "method", "status"], registry=own)
        about = "Seconds from the head of a request to the last byte of its answer."
        self._seconds = Histogram("openbook_request_seconds", about, ["route"], buckets=_BUCKETS_S, registry=own)
        about = "Answers of the model, by how they ended."
        self._answers = Counter("openbook_answers", about, ["mode", "end"], registry=own)
        self._tokens = Counter("openbook_tokens", "Tokens read and written.", ["kind"], registry=own)
        # The label is called gate since 0.1.0: dashboards name it.
        self._running = Gauge("openbook_running", "Requests that compute now.", ["gate"], registry=own)
        self._waiting = Gauge("openbook_waiting", "Requests that wait for a place.", ["gate"], registry=own)

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        self._requests.labels(route, method, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def answer(self, mode: str, end: str, prompt_tokens: int | None, answer_tokens: int | None) -> None:
        self._answers.labels(mode, end).inc()
        self._tokens.labels("read").inc(prompt_tokens or 0)
        self._tokens.labels("written").inc(answer_tokens or 0)

    def watch(self, name: str, queue: Places) -> None:
        """Tell from now on how many requests compute and wait in this queue."""
        self._running.labels(name).set_function(lambda: queue.running)
        self._waiting.labels(name).set_function(lambda: queue.waiting)

    def text(self) -> bytes:
        return generate_latest(self._registry)


class Traces:
    """Reports finished answers to a tracer; they hold their own times."""

    def __init__(self, provider: TracerProvider | None) -> None:
        self._tracer = get_tracer("openbook", __version__, provider)

    def answered(self, answer: Answer, mode: str, began_ns: int, carrier: Mapping[str, str]) -> None:
        """`began_ns`: Unix time. `carrier`: the headers of the request."""
        times, receipt = answer.timings or Timings(), answer.receipt
        span = self._begun(mode, began_ns, carrier)
        span.set_attributes(
            {
                "gen_ai.operation.name": "chat",
                "gen_ai.request.model": receipt.model.name,
                "gen_ai.usage.input_tokens": answer.prompt_tokens or 0,
                "gen_ai.usage.output_tokens": answer.answer_tokens or 0,
                "openbook.model.digest": receipt.model.digest,
                "openbook.numeric_class": receipt.numeric_class,
                "openbook.receipt": receipt.digest,
                "openbook.finish_reason": answer.finish_reason,
                "openbook.abstained": answer.abstained,
                "openbook.passages": len(answer.passages),
                "openbook.citations": len(answer.citations),
            }
        )
        read_ns = began_ns + _ns(times.retrieve_s)
        cite_ns = read_ns + _ns(times.read_s)
        end_ns = began_ns + _ns(times.total_s)
        steps = [("retrieve", began_ns, read_ns), ("read", read_ns, cite_ns), ("cite", cite_ns, end_ns)]
        if receipt.knowledge_base is None or receipt.knowledge_base_version is None:
            steps = steps[1:2]
        else:
            span.set_attribute("openbook.knowledge_base", receipt.knowledge_base)
            span.set_attribute("openbook.knowledge_base.version", receipt.knowledge_base_version)
        inside = set_span_in_context(span)
        for name, step_began_ns, step_end_ns in steps:
            step = self._tracer.start_span(name, inside, start_time=step_began_ns)
            if name == "read" and times.first_token_s is not None:
                step.add_event("first token", timestamp=read_ns + _ns(times.first_token_s))
            step.end(step_end_ns)
        span.end(end_ns)

    def failed(self, error: Exception, mode: str, began_ns: int, carrier: Mapping[str, str]) -> None:
        """An answer that failed. The span has the kind of the error, not its message, which may quote a text."""
        span = self._begun(mode, began_ns, carrier)
        span.set_attribute("error.type", type(error).__name__)
        span.set_status(Status(StatusCode.ERROR))
        span.end()

    def _begun(self, mode: str, began_ns: int, carrier: Mapping[str, str]) -> Span:
        context, attributes = _PROPAGATOR.extract(carrier), {"openbook.mode": mode}
        return self._tracer.start_span("ask", context, SpanKind.SERVER, attributes, start_time=began_ns)


def _ns(seconds: float) -> int:
    return round(seconds * 1_000_000_000)


def provider_of(environment: Mapping[str, str] = os.environ) -> SdkProvider | None:
    """Sends spans where OpenTelemetry's environment variables say; None if they name no address. The caller shuts it down.

    Raises ConfigError when the extra is missing.
    """
    named = next((name for name in ENDPOINTS if environment.get(name)), "")
    if not named or environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    with needs_extra(f"{named} is set, but sending traces", "otel"):
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider as SdkProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    name = {} if "OTEL_SERVICE_NAME" in environment else {"service.name": "openbook"}
    provider = SdkProvider(resource=Resource.create(name))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider
