from __future__ import annotations

import dataclasses
import json
from contextlib import closing
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.answers.ask import ask
from openbook.answers.retrieval import Corpus, Options
from openbook.core.errors import QuestionError
from openbook.core.records import Decoding
from openbook.inference import FrozenModel
from openbook.inference.decoding import AnswerDecoder, request_digest
from openbook.inference.json_grammar import MAX_PARTS, JsonGrammar, checked_schema, json_tokenizer
from openbook.inference.llamacpp import LlamaCppEngine
from openbook.models import ModelReference
from openbook.proofs.replay import replay
from openbook.testing import HashEmbedder, echo_model
from tests.conformance.models import PROMPT
from tests.conftest import base_with, open_engine


class Bytes:
    """Token n is byte n; the last ends."""

    vocabulary_size = 257

    def ends_generation(self, token: int) -> bool:
        return token == 256

    def is_control(self, token: int) -> bool:
        return token == 256

    def piece(self, token: int) -> bytes:
        return bytes([token])


TOKENIZER = json_tokenizer(Bytes())
NAMES = st.sampled_from(["a", "year", "a b", "ä\n", '"', "$ref"])
LEAVES: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.sampled_from(["string", "integer", "number", "boolean", "null"]).map(lambda kind: {"type": kind}),
    st.just({"type": ["string", "null"], "title": "T"}),
    st.just({"type": "integer", "minimum": 3, "maximum": 7000}),
    st.just({"type": "string", "minLength": 2, "maxLength": 5}),
    st.just({"type": "string", "format": "date"}),
    st.lists(st.integers() | st.text() | st.none() | st.booleans(), min_size=1, max_size=4).map(
        lambda values: {"enum": values}
    ),
    st.text().map(lambda value: {"const": value}),
)


def larger(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    def of_properties(properties: dict[str, Any], some: int, closed: bool | None) -> dict[str, Any]:
        more = {} if closed is None else {"additionalProperties": not closed}
        return {"type": "object", "properties": properties, "required": list(properties)[:some], **more}

    return st.one_of(
        st.builds(
            of_properties, st.dictionaries(NAMES, inner, max_size=3), st.integers(0, 3), st.none() | st.booleans()
        ),
        inner.map(lambda each: {"type": "array", "items": each, "minItems": 1, "maxItems": 3}),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"anyOf": parts, "description": "one"}),
        inner.map(lambda each: {"$defs": {"x": each}, "$ref": "#/$defs/x"}).filter(
            lambda each: "$defs" not in str(each["$defs"])
        ),
    )


def written(schema: str, seed: int, max_tokens: int = 2000) -> AnswerDecoder:
    """An answer of chance, which likes to end texts and objects."""
    decoding = Decoding(max_tokens=max_tokens, schema=schema, temperature=1.0, seed=seed)
    request = request_digest("model", "prompt", decoding)
    decoder = AnswerDecoder(Bytes(), decoding, request, None, JsonGrammar(TOKENIZER, schema))
    rng = np.random.default_rng(seed)
    while decoder.finish is None:
        logits = rng.normal(size=257).astype(np.float32)
        logits[[*b'"}]', 256]] += 6
        decoder.take(logits)
    return decoder


@given(
    st.recursive(LEAVES, larger, max_leaves=6).filter(
        lambda each: "$defs" not in str(each)[1:].replace("{'$defs'", "", 1)
    ),
    st.integers(0, 99),
)
def test_an_answer_is_json_that_its_schema_accepts(schema: dict[str, Any], seed: int) -> None:
    text = checked_schema(schema)
    decoder = written(text, seed)
    assert decoder.finish == "end"
    jsonschema.validate(json.loads(decoder.text), schema)
    assert written(text, seed).text == decoder.text


def test_a_recursive_schema_holds_at_every_depth() -> None:
    node = {"type": "object", "properties": {"n": {"type": "array", "items": {"$ref": "#/$defs/n"}}}, "required": ["n"]}
    schema = {"$defs": {"n": node}, "$ref": "#/$defs/n"}
    for seed in range(5):
        jsonschema.validate(json.loads(written(checked_schema(schema), seed).text), schema)


def test_json_that_reaches_the_longest_length_is_cut() -> None:
    text = checked_schema({"type": "string", "minLength": 50})
    assert (written(text, 0, 20).finish, written(text, 0, 20).answer_tokens) == ("length", 20)


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"properties": {"a": {"type": "string", "pattern": "a+"}}}, "'properties.a.pattern' cannot be used"),
        ({"items": {"oneOf": []}}, "'items.oneOf'"),
        ({"allOf": [{}]}, "'allOf'"),
        ({"not": {}}, "'not'"),
        ({"anyOf": [{}], "type": "object"}, "'anyOf' cannot be used: this keyword cannot have others next to it"),
        ({"x-guidance": {"lenient": True}}, "'x-guidance'"),
        ({"$ref": "http://example.com/x.json"}, "refers to 'http://example.com/x.json'"),
        ({"$ref": "#/examples/0", "examples": [{"pattern": "a"}]}, "refers to '#/examples/0'"),
        ({"type": "strin"}, "Invalid type: strin"),
        ({"type": "string", "format": "colour"}, "Unknown format: colour"),
        ({"type": "object", "properties": {"a": False}, "required": ["a"]}, "Unsatisfiable"),
        ({"properties": {"a": 1}}, "cannot be used"),
        ({"properties": {f"p{i}": {} for i in range(MAX_PARTS)}}, "too many properties"),
        ({"required": [f"p{i}" for i in range(MAX_PARTS)]}, "too many properties"),
        ({"prefixItems": [{}] * MAX_PARTS}, "too many properties"),
        ({"enum": ["x" * 20_000]}, "at most 16,384 bytes"),
        (nested(150), "recursion limit"),
    ],
)
def test_an_unsupported_schema_is_refused(schema: dict[str, Any], message: str) -> None:
    with pytest.raises(QuestionError) as refused:
        checked_schema(schema)
    assert message in str(refused.value)


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "[]", '{"not":{}}'])
def test_a_receipt_with_an_invalid_schema_is_not_replayed(text: str) -> None:
    receipt = ask("Why?", echo_model()).receipt
    receipt = dataclasses.replace(receipt, decoding=Decoding(schema=text)).sealed()
    with pytest.raises(QuestionError, match="schema"):
        replay(receipt, echo_model(), None)


def test_the_order_of_properties_stays_and_the_callers_schema_is_not_changed() -> None:
    schema = {"type": "object", "properties": {"why": {"type": "string"}, "answer": {"type": "string"}}}
    text = checked_schema(schema)
    assert list(json.loads(text)["properties"]) == ["why", "answer"]
    assert ("additionalProperties" in schema, json.loads(text)["additionalProperties"]) == (False, False)


PERSON = {
    "type": "object",
    "properties": {"who": {"type": "string"}, "year": {"type": "integer"}, "is_open": {"type": "boolean"}},
    "required": ["who", "year"],
}


@pytest.mark.model
@pytest.mark.laws
@pytest.mark.parametrize("schema", [PERSON, {"enum": ["yes", "no"]}, {"type": "array", "items": PERSON, "maxItems": 2}])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_real_model_keeps_to_the_schema(engine: LlamaCppEngine, schema: dict[str, Any], temperature: float) -> None:
    decoding = Decoding(temperature=temperature, max_tokens=200, schema=checked_schema(schema))
    found, again = ("".join(engine.generate(PROMPT, decoding)) for _ in range(2))
    jsonschema.validate(json.loads(found), schema)
    assert again == found


@pytest.mark.parametrize(
    ("reader", "schema"),
    [("small", {"enum": ["yes", "no"]}), pytest.param("trained", PERSON, marks=[pytest.mark.model, pytest.mark.laws])],
    indirect=["reader"],
)
def test_an_answer_in_json_is_replayed_by_another_engine(
    reader: ModelReference, schema: dict[str, Any], tmp_path: Path
) -> None:
    texts = {"bridge.txt": "The bridge was opened on 14 March 2026 by mayor Lila Ortega. It has four lanes."}
    model = reader.needed_base
    options = Options(decoding=Decoding(max_tokens=120, temperature=0.8, seed=7, schema=checked_schema(schema)))
    with closing(base_with(tmp_path / "docs", texts)) as base, closing(open_engine(model)) as engine:
        answer = ask("Who opened the bridge?", FrozenModel(engine), Corpus(base, HashEmbedder()), options)
        with closing(open_engine(model)) as other:
            assert replay(answer.receipt, FrozenModel(other), base).identical
    jsonschema.validate(json.loads(answer.answer), schema)
    assert [each.quote for each in answer.citations] or schema is not PERSON
