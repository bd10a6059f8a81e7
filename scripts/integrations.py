"""Try each integration with the real library, in an environment of its own: its tests, and one question to the default model.

python scripts/integrations.py                all
python scripts/integrations.py langchain dspy these

Prints the library's version, the result of its tests, which also run the program of docs/integrations.md, and whether
the question has the citations there that `openbook.open` gives it; DSPy has only passages. Models: .cache/test-home.
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

import openbook

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


def tried(name: str, folder: Path, expected: Any) -> bool:
    """Whether the tests pass and QUESTION has what is expected."""
    start, python = time.monotonic(), folder / name / "bin" / "python"
    venv.create(folder / name)
    install = ("-m", "pip", "--python", str(python), "install", "--quiet", str(ROOT), PACKAGES[name])
    subprocess.run([sys.executable, *install, "hypothesis", "pytest", "pytest-xdist"], check=True)

    def run(where: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([str(python), *arguments], cwd=where, capture_output=True, text=True, check=False)

    version = run(folder, "-c", VERSION, PACKAGES[name]).stdout.strip()
    tests = run(ROOT, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", f"tests/integrations/test_{name}.py")
    shown = run(folder, "-c", f"QUESTION = {QUESTION!r}{SHOWN[name]}\nimport json\nprint(json.dumps(shown))")
    for done in (tests, shown):
        if done.returncode != 0:
            print(done.stdout, done.stderr)
    same = shown.returncode == 0 and json.loads(shown.stdout.splitlines()[-1]) == expected
    told = f"the {'same' if same else 'WRONG'} {'passages' if name == 'dspy' else 'citations'}"
    print(
        f"{PACKAGES[name]} {version}: {tests.stdout.splitlines()[-1]}; {told} ({time.monotonic() - start:.0f} s)",
        flush=True,
    )
    return same and tests.returncode == 0


def main() -> int:
    names = sys.argv[1:] or list(PACKAGES)
    if unknown := set(names) - set(PACKAGES):
        print(f"No integration {', '.join(sorted(unknown))}; there are {', '.join(PACKAGES)}.")
        return 2
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        MODELS.mkdir(parents=True, exist_ok=True)
        (folder / "home").mkdir()
        (folder / "home" / "models").symlink_to(MODELS)
        own = {"OPENBOOK_HOME": "home", "OPENBOOK_KB": "kb", "LLM_USER_PATH": "llm", "IPYTHONDIR": "ipython"}
        os.environ.update({name: str(folder / place) for name, place in own.items()})
        with openbook.open(folder / "kb") as kb:
            kb.sync(ROOT / "examples" / "handbook")
            answer = kb.ask(QUESTION)
            passages = [hit.passage.text for hit in kb.search(QUESTION, 3)]
        print(f"{QUESTION} {answer}", *(f"{each.document}: {each.quote}" for each in answer.citations), sep="\n")
        citations = json.loads(json.dumps(answer.to_json()["citations"]))
        return sum(not tried(name, folder, passages if name == "dspy" else citations) for name in names)


if __name__ == "__main__":
    sys.exit(main())
