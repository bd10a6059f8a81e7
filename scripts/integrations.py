"""Try the integrations with the real libraries, in an environment of its own: their tests, and one question to the default model.

python scripts/integrations.py                all
python scripts/integrations.py langchain dspy these

The tests also run the programs of docs/integrations.md. The question must have the citations that `openbook.open` gives
it; DSPy has only passages. With all, the clients of docs/serving.md are tried last. Models: .cache/test-home.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
MODELS = ROOT / ".cache" / "test-home" / "models"
QUESTION = "Who approves an expense?"
PACKAGES = {
    "langchain": "langchain-core",
    "llamaindex": "llama-index-core",
    "haystack": "haystack-ai",
    "dspy": "dspy",
    "llm_plugin": "llm",
    "jupyter": "ipython",
}
CLIENTS = ("langchain-openai", "llama-index-llms-openai-like")  # installed last: they need an older `openai` than `llm`
OF_CLIENTS = "tests/serving/test_clients.py::test_clients_in_the_docs"
PLAIN = f"""
import openbook
with openbook.open("kb") as kb:
    kb.sync({str(ROOT / "examples" / "handbook")!r})
    shown = kb.ask(QUESTION).to_json()["citations"], [hit.passage.text for hit in kb.search(QUESTION, 3)]"""
SHOWN = {  # how each shows the citations of QUESTION; DSPy: the texts of the passages
    "langchain": """
from openbook.integrations.langchain import ChatOpenBook
shown = ChatOpenBook("kb").invoke(QUESTION).response_metadata["citations"]""",
    "llamaindex": """
from openbook.integrations.llamaindex import OpenBookLLM
shown = OpenBookLLM("kb").complete(QUESTION).additional_kwargs["citations"]""",
    "haystack": """
from haystack.dataclasses import ChatMessage
from openbook.integrations.haystack import OpenBookChatGenerator
shown = OpenBookChatGenerator("kb").run([ChatMessage.from_user(QUESTION)])["replies"][0].meta["citations"]""",
    "dspy": """
from openbook.integrations.dspy import OpenBookRM
shown = [each.long_text for each in OpenBookRM("kb", k=3)(QUESTION)]""",
    "llm_plugin": """
import llm
response = llm.get_model("openbook").prompt(QUESTION)
shown = response.text() and response.response_json["citations"]""",
    "jupyter": """
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell()
shell.run_line_magic("load_ext", "openbook.integrations.jupyter")
shown = shell.run_line_magic("ask", QUESTION).to_json()["citations"]""",
}
VERSION = "import sys, importlib.metadata as m; print(m.version(sys.argv[1]))"


def main() -> int:
    names = sys.argv[1:] or list(PACKAGES)
    if unknown := set(names) - set(PACKAGES):
        print(f"No integration {', '.join(sorted(unknown))}; there are {', '.join(PACKAGES)}.")
        return 2
    with tempfile.TemporaryDirectory() as scratch:
        folder, start = Path(scratch), time.monotonic()
        MODELS.mkdir(parents=True, exist_ok=True)
        (folder / "home").mkdir()
        (folder / "home" / "models").symlink_to(MODELS)
        own = {"OPENBOOK_HOME": "home", "OPENBOOK_KB": "kb", "LLM_USER_PATH": "llm", "IPYTHONDIR": "ipython"}
        os.environ.update(
            {name: str(folder / place) for name, place in own.items()}, HAYSTACK_TELEMETRY_ENABLED="false"
        )
        os.environ.pop("PYTHONPATH", None)
        python = folder / "environment" / "bin" / "python"
        venv.create(folder / "environment")

        def install(*packages: str) -> None:
            subprocess.run(
                [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", *packages], check=True
            )

        def output(where: Path, *arguments: str) -> str:
            """Empty if it fails."""
            done = subprocess.run([python, *arguments], cwd=where, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                print(done.stdout, done.stderr)
            return done.stdout.strip() if done.returncode == 0 else ""

        def asked(program: str) -> Any:
            code = f"QUESTION = {QUESTION!r}{program}\nimport json\nprint(json.dumps(shown))"
            return json.loads(output(folder, "-c", code).rpartition("\n")[2] or "null")

        def passed(*tests: str) -> bool:
            told = output(ROOT, "-m", "pytest", "-q", "-n0", "-rs", "-p", "no:cacheprovider", *tests)
            print(told, f"({time.monotonic() - start:.0f} s)", flush=True)
            return bool(told)

        install(f"{ROOT}[serve]", *(PACKAGES[name] for name in names), "hypothesis", "pytest", "pytest-xdist")
        print(f"installed ({time.monotonic() - start:.0f} s)", flush=True)
        is_good = passed(*(f"tests/integrations/test_{name}.py" for name in (*names, "without_libraries")))
        citations, passages = asked(PLAIN) or ([], [])
        print(QUESTION, *(f"{each['document']}: {each['quote']}" for each in citations), sep="\n", flush=True)
        for name in names:
            is_same = bool(citations) and asked(SHOWN[name]) == (passages if name == "dspy" else citations)
            is_good = is_good and is_same
            told = f"the {'same' if is_same else 'WRONG'} {'passages' if name == 'dspy' else 'citations'}"
            version = output(folder, "-c", VERSION, PACKAGES[name])
            print(f"{PACKAGES[name]} {version}: {told} ({time.monotonic() - start:.0f} s)", flush=True)
        if names == list(PACKAGES):
            install(*CLIENTS)
            is_good = passed(OF_CLIENTS) and is_good
        return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
