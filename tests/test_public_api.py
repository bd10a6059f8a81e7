"""What `import openbook` offers: at most twenty names, each typed and each shown in the tour, which runs."""

from __future__ import annotations

import doctest
import inspect
from pathlib import Path

import pytest

import openbook
from openbook.models import ModelStore
from tests.conftest import MODEL_HOME, stored

TOUR, _, WITH_MODELS = (openbook.__doc__ or "").partition("With real models")


def run(text: str) -> None:
    test = doctest.DocTestParser().get_doctest(text, {"Path": Path, "openbook": openbook}, "openbook", None, None)
    assert test.examples
    found: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.REPORT_NDIFF).run(test, out=found.append)
    assert not found, "".join(found)


def test_the_names_are_few_typed_and_shown_and_no_other_is_there() -> None:
    names = [name for name in openbook.__all__ if name != "__version__"]
    assert len(names) <= 20
    assert set(dir(openbook)) == set(openbook.__all__)
    for name in names:
        thing = getattr(openbook, name)
        assert f"openbook.{name}" in TOUR + WITH_MODELS, f"{name} has no example"
        assert inspect.getdoc(thing), f"{name} has no docstring"
        if inspect.isfunction(thing):
            signature = inspect.signature(thing)
            hints = [each.annotation for each in signature.parameters.values()] + [signature.return_annotation]
            assert inspect.Signature.empty not in hints, f"{name} has a parameter without a type"
    with pytest.raises(AttributeError, match="module 'openbook' has no attribute 'train'"):
        openbook.train  # noqa: B018


def test_the_tour_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run(TOUR)


@pytest.mark.model
def test_the_tour_runs_with_real_models(monkeypatch: pytest.MonkeyPatch, model_store: ModelStore) -> None:
    for name in ("qwen2.5-coder-1.5b-instruct", "minilm-l6-int8"):
        stored(model_store, name)
    monkeypatch.chdir(MODEL_HOME)
    run(WITH_MODELS)
