"""Spans of answers: their tree and times, what they never hold, and that they reach a collector."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from openbook.inference import FrozenModel
from openbook.inference.frozen import Cancelled, never
from openbook.knowledge import KnowledgeBase
from openbook.records import Completion, Decoding, Prompt
from openbook.serving.configuration import Configuration
from openbook.serving.telemetry import ENDPOINTS, provider_of
from openbook.testing import EchoEngine, echo_model
from tests.serving.conftest import QUESTION, Running, running


class Traced:
    def __init__(self, server: Running, exporter: InMemorySpanExporter) -> None:
        self.server, self._exporter = server, exporter

    def spans(self) -> dict[str, ReadableSpan]:
        found = self._exporter.get_finished_spans()
        self._exporter.clear()
        assert len({span.name for span in found}) == len(found)
        return {span.name: span for span in found}


@pytest.fixture
def traced(configuration: Configuration, base: KnowledgeBase, monkeypatch: pytest.MonkeyPatch) -> Iterator[Traced]:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)  # FastAPI's own spans would name documents
    with running(configuration, echo_model(), {"kb": base}, tracers=provider) as server:
        yield Traced(server, exporter)
    provider.shutdown()


def test_an_answer_is_a_tree_in_the_order_of_its_steps(traced: Traced) -> None:
    answer = traced.server.ask(QUESTION).json()
    spans = traced.spans()
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


def test_an_answer_is_part_of_the_clients_trace_without_a_word_of_its_own(traced: Traced) -> None:
    trace, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    traced.server.ask(QUESTION, {"traceparent": f"00-{trace}-{parent}-01"})
    whole = traced.spans()["ask"]
    assert whole.context.trace_id == int(trace, 16)
    assert whole.parent is not None
    assert whole.parent.span_id == int(parent, 16)
    for nonsense in ("", "00-zz-zz-01", "~" * 500, "00-" + "0" * 32 + "-" + "0" * 16 + "-01"):
        assert traced.server.ask(QUESTION, {"traceparent": nonsense}, model="echo:closed-book").status_code == 200
        spans = traced.spans()
        assert set(spans) == {"ask", "read"}  # a closed-book answer retrieves and cites nothing
        assert spans["ask"].parent is None
    answer = traced.server.ask(QUESTION).json()["choices"][0]["message"]["content"]
    written = " ".join(span.to_json() for span in traced.spans().values())
    for text in (QUESTION, answer, "mayor", "bridge", "Ortega"):
        assert text not in written


class FailingEngine(EchoEngine):
    def generate(
        self, prompt: Prompt, decoding: Decoding, cancelled: Cancelled = never
    ) -> Generator[str, None, Completion]:
        yield from super().generate(prompt, decoding, cancelled)
        raise RuntimeError(f"broke over {prompt.question}")


def test_an_answer_that_failed_says_so_without_its_sentence(configuration: Configuration, base: KnowledgeBase) -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    failing = FrozenModel(FailingEngine())
    with running(configuration, failing, {"kb": base}, tracers=provider) as server:
        assert server.ask(QUESTION).status_code == 500
    (span,) = exporter.get_finished_spans()
    assert not span.status.is_ok
    assert (span.attributes or {})["error.type"] == "RuntimeError"
    assert "bridge" not in span.to_json()


def test_spans_are_sent_where_the_variable_says() -> None:
    provider = provider_of({ENDPOINTS[1]: "http://127.0.0.1:9"})
    assert provider is not None
    assert provider.resource.attributes["service.name"] == "openbook"
    provider.shutdown()


@pytest.mark.parametrize(
    "environment", [{}, {ENDPOINTS[0]: ""}, {ENDPOINTS[0]: "http://127.0.0.1:9", "OTEL_SDK_DISABLED": "true"}]
)
def test_without_an_address_nothing_is_sent(environment: dict[str, str]) -> None:
    assert provider_of(environment) is None
