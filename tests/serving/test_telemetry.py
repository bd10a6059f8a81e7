"""Spans of answers: their tree and times, what they never hold, and that they reach a collector."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from openbook.errors import EngineError
from openbook.serving.telemetry import ENDPOINTS, provider_of
from tests.serving.conftest import QUESTION, Running, Serve
from tests.serving.test_attacks import BrokenEngine


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracers(exporter: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch) -> Iterator[TracerProvider]:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)  # FastAPI's own spans would name documents
    yield provider
    provider.shutdown()


@pytest.fixture
def server(serve: Serve, tracers: TracerProvider) -> Running:
    return serve(tracers=tracers)


def spans_of(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    """Those that ended since the last look, by their names."""
    found = exporter.get_finished_spans()
    exporter.clear()
    assert len({span.name for span in found}) == len(found)
    return {span.name: span for span in found}


def test_an_answer_is_a_tree_in_the_order_of_its_steps(server: Running, exporter: InMemorySpanExporter) -> None:
    answer = server.ask(QUESTION).json()
    spans = spans_of(exporter)
    assert set(spans) == {"ask", "retrieve", "read", "cite"}
    whole = spans["ask"]
    assert whole.parent is None
    for name in ("retrieve", "read", "cite"):
        assert spans[name].parent == whole.context
    times = [(spans[name].start_time or 0, spans[name].end_time or 0) for name in ("retrieve", "read", "cite")]
    assert times == sorted(times)
    assert whole.start_time == times[0][0]
    assert all(start <= end <= (whole.end_time or 0) for start, end in times)
    assert [event.name for event in spans["read"].events] == ["first token"]
    said = dict(whole.attributes or {})
    assert said["openbook.receipt"] == answer["openbook"]["receipt"]["digest"]
    assert said["openbook.knowledge_base.version"] == answer["openbook"]["receipt"]["knowledge_base_version"]
    assert said["gen_ai.usage.output_tokens"] == answer["usage"]["completion_tokens"]


def test_an_answer_is_part_of_the_clients_trace_without_a_word_of_its_own(
    server: Running, exporter: InMemorySpanExporter
) -> None:
    trace, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    server.ask(QUESTION, {"traceparent": f"00-{trace}-{parent}-01"})
    whole = spans_of(exporter)["ask"]
    assert whole.context.trace_id == int(trace, 16)
    assert whole.parent is not None
    assert whole.parent.span_id == int(parent, 16)
    for nonsense in ("", "00-zz-zz-01", "~" * 500, "00-" + "0" * 32 + "-" + "0" * 16 + "-01"):
        assert server.ask(QUESTION, {"traceparent": nonsense}, model="echo:closed-book").status_code == 200
        spans = spans_of(exporter)
        assert set(spans) == {"ask", "read"}  # a closed-book answer retrieves and cites nothing
        assert spans["ask"].parent is None
    answer = server.ask(QUESTION).json()["choices"][0]["message"]["content"]
    written = " ".join(span.to_json() for span in spans_of(exporter).values())
    for text in (QUESTION, answer, "mayor", "bridge", "Ortega"):
        assert text not in written


@pytest.mark.parametrize("kind", [EngineError, RuntimeError])
def test_an_answer_that_failed_says_so_without_its_sentence(
    serve: Serve, tracers: TracerProvider, exporter: InMemorySpanExporter, kind: type[Exception]
) -> None:
    assert serve(BrokenEngine(kind), tracers=tracers).ask(QUESTION).status_code == 500
    (span,) = spans_of(exporter).values()
    assert not span.status.is_ok
    assert (span.attributes or {})["error.type"] == kind.__name__
    assert "canary" not in span.to_json()


def test_spans_are_sent_where_the_variable_says_and_nowhere_without_it() -> None:
    provider = provider_of({ENDPOINTS[1]: "http://127.0.0.1:9"})
    assert provider is not None
    assert provider.resource.attributes["service.name"] == "openbook"
    provider.shutdown()
    switched_off = {ENDPOINTS[0]: "http://127.0.0.1:9", "OTEL_SDK_DISABLED": "true"}
    for environment in ({}, {ENDPOINTS[0]: ""}, switched_off):
        assert provider_of(environment) is None
