"""Answers that are JSON of a schema: which tokens may come next, as llguidance computes it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from openbook.core.errors import EngineError, QuestionError

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer
    from numpy.typing import NDArray

MAX_SCHEMA_BYTES, MAX_PARTS = 16_384, 200  # compiling takes at most about a second
# Keywords that need an intersection or a regular expression can take hours to compile.
_ONE, _MANY = {"items", "additionalProperties"}, {"anyOf", "prefixItems"}
_NAMED = {"properties", "$defs", "definitions"}
_LIMITS = set("minimum maximum exclusiveMinimum exclusiveMaximum minLength maxLength minItems maxItems".split())
_NOTES = set("title description default examples deprecated $schema $comment $defs definitions".split())
_KEYWORDS = _ONE | _MANY | _NAMED | _LIMITS | _NOTES | {"type", "required", "enum", "const", "format", "$ref"}
_REFERENCE = re.compile(r"#(?:/(?:\$defs|definitions)/[^/]+)?")
_OPTIONS: Any = {
    "item_separator": ", ",
    "key_separator": ": ",
    "whitespace_flexible": False,
    "coerce_one_of": False,
    "lenient": False,
}


def checked_schema(schema: dict[str, Any]) -> str:
    """Its JSON, for `Decoding.schema`. Objects that list properties and do not allow others explicitly have no others.

    Raises QuestionError if answers cannot be held to it.
    """
    text = json.dumps(schema)
    if len(text) > MAX_SCHEMA_BYTES:
        raise QuestionError(f"The schema is too large. It may have at most {MAX_SCHEMA_BYTES:,} bytes.")
    schema = json.loads(text)
    parts, rest = 0, list[tuple[str, Any]]([("", schema)])
    while rest:
        place, each = rest.pop()
        parts += 1
        if not isinstance(each, dict):
            continue  # true and false are schemas; llguidance refuses anything else
        required, properties = each.get("required", []), each.get("properties")
        parts += len(required) if isinstance(required, list) else 0
        if isinstance(properties, dict) and isinstance(required, list) and {*map(str, required)} <= properties.keys():
            each.setdefault("additionalProperties", False)
        unknown = [key for key in each if key not in _KEYWORDS]
        alone = [key for key in ("$ref", "anyOf") if key in each and not {key, *_NOTES} >= each.keys()]
        if unknown or alone:
            why = "keyword is not supported" if unknown else "keyword cannot have others next to it"
            shown = f"{place}.{(unknown or alone)[0]}".lstrip(".")[:200]
            raise QuestionError(f"The schema's {shown!r} cannot be used: this {why}.")
        if "$ref" in each and not (isinstance(each["$ref"], str) and _REFERENCE.fullmatch(each["$ref"])):
            shown = str(each["$ref"])[:100]
            raise QuestionError(f"The schema refers to {shown!r}. It can refer to its own $defs only.")
        rest += _parts(place, each)
        if parts + len(rest) > MAX_PARTS:
            raise QuestionError(f"The schema has too many properties. With all parts, it may have {MAX_PARTS}.")
    text = json.dumps(schema, ensure_ascii=False, separators=(",", ":"))
    try:
        problem = _llguidance().LLMatcher.validate_grammar(_grammar(text))
    except ValueError as error:
        problem = str(error)
    if problem:
        raise QuestionError(f"The schema cannot be used: {problem.splitlines()[0][:300]}.")
    return text


def check_schema_text(text: str) -> None:
    """Raises QuestionError unless `text` is the JSON of a schema that `checked_schema` takes."""
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise QuestionError("The schema of the answer is not JSON.") from error
    if not isinstance(schema, dict):
        raise QuestionError("The schema of the answer is not an object.")
    checked_schema(schema)


def _parts(place: str, schema: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The schemas inside a schema, with their places."""
    for key, value in schema.items():
        if key in _NAMED and isinstance(value, dict):
            yield from ((f"{place}.{key}.{name}", each) for name, each in value.items())
        elif key in _MANY and isinstance(value, list):
            yield from ((f"{place}.{key}[{i}]", each) for i, each in enumerate(value))
        elif key in _ONE:
            yield f"{place}.{key}", value


def _llguidance() -> Any:
    try:
        import llguidance
    except ImportError as error:
        raise EngineError("Answers in JSON need llguidance. Install it with: pip install 'openbook[serve]'") from error
    return llguidance


def _grammar(schema: str) -> str:
    grammar: str = _llguidance().LLMatcher.grammar_from_json_schema(schema, overrides=_OPTIONS)
    return grammar


class Vocabulary(Protocol):
    vocabulary_size: int

    def ends_generation(self, token: int) -> bool: ...
    def is_control(self, token: int) -> bool: ...
    def piece(self, token: int) -> bytes: ...


def json_tokenizer(vocabulary: Vocabulary) -> LLTokenizer:
    """For `JsonGrammar`. Takes about a second for a large vocabulary."""

    class Tokens:
        is_tokenizer_wrapper, bos_token_id, special_token_ids = True, None, list[int]()

        def __init__(self) -> None:
            every = range(vocabulary.vocabulary_size)
            self.ends = [token for token in every if vocabulary.ends_generation(token)]
            self.eos_token_id = self.ends[0]
            self.tokens = [b"" if vocabulary.is_control(token) else vocabulary.piece(token) for token in every]

        def __call__(self, text: str) -> list[int]:
            """The longest tokens first: a function of the vocabulary's bytes alone."""
            tokens: list[int] = tokenizer.greedy_tokenize(text)
            return tokens

    library, tokens = _llguidance(), Tokens()
    # `slices` would save microseconds a token and take seconds here.
    tokenizer: LLTokenizer = library.LLTokenizer(tokens, eos_token=tokens.ends, slices=[])
    return tokenizer


class JsonGrammar:
    """What may follow in one answer. `schema` is as `checked_schema` returns it."""

    def __init__(self, tokenizer: LLTokenizer, schema: str) -> None:
        self._tokenizer, self._schema = tokenizer, schema

    @cached_property
    def _matcher(self) -> LLMatcher:
        matcher: LLMatcher = _llguidance().LLMatcher(self._tokenizer, _grammar(self._schema), log_level=0)
        return matcher

    def allowed(self) -> NDArray[np.bool_]:
        """One for each token of the vocabulary. Raises QuestionError if there is none."""
        mask = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        found = np.unpackbits(mask, bitorder="little")[: self._tokenizer.vocab_size].astype(bool)
        if self._matcher.is_error() or not found.any():
            reason = (self._matcher.get_error().splitlines() or ["it allows no answer"])[0][:300]
            raise QuestionError(f"The schema cannot be used: {reason}.")
        return found

    def accept(self, token: int) -> bool:
        """Add a token that is allowed. True if the JSON can only end here."""
        self._matcher.consume_token(token)
        return self._matcher.is_stopped()
