"""/openapi.json is whole, and true of what the server does: requests generated from it are answered as it says.

A larger run by hand: `st run http://127.0.0.1:8000/openapi.json`.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from jsonschema import Draft202012Validator

from openbook.serving.completions import ChatBody
from tests.serving.conftest import Running


def test_description_is_complete_and_states_rights(shared: Running, keyed: Running) -> None:
    description = shared.client.get("/openapi.json").json()
    schemas = description["components"]["schemas"]
    used = {part.partition('"')[0] for part in json.dumps(description).split("#/components/schemas/")[1:]}
    assert used <= set(schemas)
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)
    operations = [each for item in description["paths"].values() for each in item.values()]
    assert len({each["operationId"] for each in operations}) == len(operations)
    for each in operations:
        assert each["description"]
        assert each["security"] == [{}, {"key": []}] if "x-right" in each else "security" not in each
    assert set(schemas["ChatBody"]["properties"]) == set(ChatBody.model_fields)
    assert schemas["ChatBody"]["additionalProperties"] is True
    assert schemas["AskOptions"]["additionalProperties"] is False
    with_key = keyed.client.get("/openapi.json", headers=keyed.key()).json()
    assert with_key["paths"]["/v1/search"]["post"]["security"] == [{"key": []}]


WHY = "pip install schemathesis, to test with generated requests too"
schemathesis = pytest.importorskip("schemathesis", reason=WHY)
checks = pytest.importorskip("schemathesis.specs.openapi.checks", reason=WHY)

# A purge reads every byte, and what is uploaded is read in a process of its own: a handful of them takes seconds.
FEW = {"/v1/documents": 2, "/v1/documents/purge": 2}
# The description does not name every limit, and a text may be no question, so that some of what it allows is refused with 400.
NOT_CHECKED = [checks.positive_data_acceptance]


@pytest.mark.filterwarnings("ignore")
# (each route so far from the last, examples of each kind)
@pytest.mark.parametrize(("step", "examples"), [(6, 1), pytest.param(1, 5, marks=pytest.mark.laws)])
def test_generated_requests_are_answered_as_described(
    with_receipts: Running, monkeypatch: pytest.MonkeyPatch, step: int, examples: int
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    description = with_receipts.client.get("/openapi.json").json()
    operations = [each.ok() for each in schemathesis.openapi.from_dict(description).get_all_operations()][::step]
    for mode in ("positive", "negative"):
        asked = 0
        for operation in operations:
            if mode == "positive" or can_be_wrong(operation.definition.raw):
                asked += _ask(with_receipts, operation, mode, examples)
        assert asked >= len(operations) // 2, mode


def can_be_wrong(described: dict[str, Any]) -> bool:
    return "requestBody" in described or any(each["in"] == "query" for each in described.get("parameters", ()))


def _ask(server: Running, operation: Any, mode: str, examples: int) -> int:
    """How many requests were made."""
    asked = 0

    @settings(
        max_examples=min(examples, FEW.get(operation.path, examples)),
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=schemathesis.GenerationMode(mode)))
    def check(case: Any) -> None:
        nonlocal asked
        asked += 1
        if mode == "positive" and isinstance(case.body, dict) and "model" in case.body:
            case.body["model"] = "hash" if "embeddings" in operation.path else "echo"  # so that something is done
        case.call_and_validate(base_url=server.url, excluded_checks=NOT_CHECKED)

    check()
    return asked
