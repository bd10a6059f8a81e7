"""Fences that keep training out of answering."""

from __future__ import annotations

import ast

import pytest

from openbook.inference import FrozenModel
from openbook.testing import EchoEngine
from tests.conftest import ROOT, printed

LOAD_ALL = """
import importlib, sys
from pathlib import Path
import openbook
root = Path(openbook.__path__[0])
for file in sorted(root.rglob("*.py")):  # by file: walking the packages would import each to look inside
    parts = ["openbook", *file.relative_to(root).with_suffix("").parts]
    if not {"training", "integrations", "__main__"} & set(parts):  # integrations need libraries that are not here
        try:
            importlib.import_module(".".join(p for p in parts if p != "__init__"))
        except ModuleNotFoundError as missing:
            if missing.name != "ray":  # not in the extra `dev`
                raise
from openbook.cli import VERBS, run
for verb in VERBS:
    run([verb, "--help"])
import onnxruntime, tokenizers, Stemmer, watchfiles, pathspec, yaml, olefile, llama_cpp_py_sync, jinja2, huggingface_hub, pypdfium2, lxml.html
import starlette.formparsers, uvicorn.protocols.http.httptools_impl, prometheus_client, pydantic, python_multipart
bad = sorted(m for m in sys.modules if m.split(".")[0] in {"torch", "transformers", "peft", "accelerate", "jax", "tensorflow"}
             or m.startswith("openbook.training"))
print("REACHED", bad)
"""


def test_no_path_from_the_command_line_reaches_an_autograd_framework_or_training() -> None:
    assert printed(LOAD_ALL)[-1] == "REACHED []"


SERVE = """
import logging, sys, tempfile
from pathlib import Path
from openbook.core.config import Settings
from openbook.knowledge import KnowledgeBase
from openbook.serving.app import create_app
from openbook.serving.configuration import Configuration
from openbook.serving.server import http_server
from openbook.testing import HashEmbedder, echo_model
with tempfile.TemporaryDirectory() as home:
    base = KnowledgeBase.ensure(Path(home) / "kb", HashEmbedder().identity)
    configuration = Configuration(Settings(home=Path(home)), receipts=Path(home) / "log")
    app = create_app(configuration, echo_model(), {"kb": base}, HashEmbedder())
    http_server(app).config.load()
    base.close()
print(sorted(m for m in sys.modules if m.split(".")[0] in {"torch", "transformers", "peft"} or m.startswith("openbook.training")))
print(sorted(f"{method.upper()} {path}" for path, item in app.openapi()["paths"].items() for method in item))
print((logging.getLogger().handlers, logging.getLogger().level))
"""


def test_a_server_reaches_no_training_and_offers_nothing_that_changes_a_weight() -> None:
    reached, offered, logs = map(ast.literal_eval, printed(SERVE))
    assert reached == []
    assert logs == ([], 30)  # what is logged, and where, is for whoever runs it to say
    posts = [each.removeprefix("POST ") for each in offered if each.startswith("POST")]
    of_documents = ["/v1/documents", "/v1/documents/purge", "/v1/documents/remove"]
    of_models = ["/v1/completions", "/v1/embeddings", "/v1/replay", "/v1/responses", "/v1/search"]
    of_ollama = ["/api/chat", "/api/embed", "/api/generate", "/api/show"]
    of_questions = ["/v1/questions", "/v1/questions/check", "/v1/questions/remove"]
    of_all = sorted([*of_documents, *of_models, *of_questions, "/v1/verdicts/remove"])
    assert posts == [*of_ollama, "/mcp", "/mcp/{knowledge_base}", "/v1/chat/completions", *of_all]
    assert all(each.startswith(("GET", "POST")) for each in offered)


def test_importing_openbook_is_quick_and_does_nothing() -> None:
    code = "import sys, openbook; print(sorted(m for m in sys.modules if m.split('.')[0] in {'numpy', 'rich', 'click', 'httpx'}))"
    assert printed(code) == ["[]"]


def test_a_frozen_model_has_nothing_that_trains_and_cannot_be_changed() -> None:
    model = FrozenModel(EchoEngine())
    forbidden = {"train", "fit", "parameters", "state_dict", "backward", "update", "load_state_dict", "zero_grad"}
    assert forbidden.isdisjoint(dir(model))
    assert not any(name.startswith("set") for name in dir(model) if not name.startswith("__"))
    with pytest.raises(AttributeError):
        model.engine = EchoEngine()  # type: ignore[misc]
    with pytest.raises((AttributeError, TypeError)):
        model.extra = 1  # type: ignore[attr-defined]
    assert getattr(FrozenModel, "__final__", False)
    assert "__slots__" in vars(FrozenModel)


FILE_LINES = 700
FUNCTION_LINES = 80


def too_long(source: str) -> list[str]:
    """Functions, methods and functions inside them that are too long, decorators counted; and the file if it is."""
    found = [f"the file: {len(source.splitlines())} lines"] if len(source.splitlines()) > FILE_LINES else []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            lines = (node.end_lineno or first) - first + 1
            if lines > FUNCTION_LINES:
                found.append(f"{node.name}: {lines} lines")
    return found


def test_files_and_functions_stay_small() -> None:
    sources = sorted((ROOT / "openbook").rglob("*.py"))
    assert ROOT / "openbook" / "cli" / "__init__.py" in sources
    found = {str(path.relative_to(ROOT)): too_long(path.read_text(encoding="utf-8")) for path in sources}
    assert {path: problems for path, problems in found.items() if problems} == {}
