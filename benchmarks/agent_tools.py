"""Does a model that looks things up step by step find facts that plain asking misses?

    python -m benchmarks.agent_tools --documents FOLDER --out FILE.jsonl [--model NAME] [--questions N]

N development questions of `benchmarks/data/questions.jsonl` with key facts that `ask` answered wrong (`recipes/data/answers-natural.jsonl.gz`), each
about the folder below FOLDER that it names as its corpus. The model gets a question and the tools that agents have over MCP: `search`, `grep`, `find`
and `read`. It writes one line a step, at most STEPS of them. A fact counts as seen when a result or the answer states all key facts, and as answered
when the answer does. A run continues where it stopped.

Prints a line a question and, as its last line, one JSON document.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.natural_questions import OTHERS, Question, holds, judged, questions
from benchmarks.processes import ROOT
from benchmarks.stored import default_embedder, opened
from openbook.core.config import load_settings
from openbook.core.errors import OpenBookError
from openbook.core.records import Decoding, Embedder, Prompt
from openbook.inference import FrozenModel
from openbook.knowledge import KnowledgeBase, Scope, lookup
from openbook.knowledge.docs_cache import for_documents

ANSWERS = ROOT / "recipes" / "data" / "answers-natural.jsonl.gz"
STEPS, RESULT_CHARS, STEP_TOKENS = 4, 1_200, 80
SYSTEM = """You find the answer to a question in a collection of documents. Write exactly one line, which is one of:
search WORDS  (passages about these words)
grep WORDS  (lines that contain exactly these words)
find NAME  (documents whose name contains this)
read DOCUMENT START  (the text of a document from this character on)
answer TEXT  (your answer, once a result states it)
Look things up first. Do not repeat a step; try other words instead."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", help="a stored model (default: that of the settings)")
    parser.add_argument("--questions", type=int, default=20)
    options = parser.parse_args()
    settings, embedder = load_settings(), default_embedder()
    rows = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    with ExitStack() as stack:
        model = stack.enter_context(closing(opened(options.model or settings.model)))
        bases: dict[str, KnowledgeBase] = {}
        for question in missed()[: options.questions]:
            if question.id in {row["id"] for row in rows}:
                continue
            if question.corpus not in bases:
                folder = (options.documents / question.corpus).resolve()
                found = for_documents([folder], settings.derived_dir, embedder)[0]
                bases[question.corpus] = stack.enter_context(closing(found))
            row = asked(question, model, partial(result_of, bases[question.corpus], embedder))
            print(row["id"], row["answered"], row["seen"], row["steps"], flush=True)
            rows.append(row)
            with options.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
    counts = {name: sum(row[name] for row in rows) for name in ("answered", "seen")}
    print(json.dumps({"questions": len(rows), **counts, "model": options.model or settings.model}))


def missed() -> list[Question]:
    """The questions that `ask` answered wrong, in one random order."""
    with gzip.open(ANSWERS, "rt", encoding="utf-8") as file:
        wrong = {row["id"] for row in map(json.loads, file) if not row["right"]}
    found = [each for each in questions("development", OTHERS) if each.id in wrong and each.facts and not each.earlier]
    random.Random("agent").shuffle(found)
    return found


def asked(question: Question, model: FrozenModel, use_tool: Callable[[str, str], str]) -> dict[str, Any]:
    told, steps, answer, is_seen = f"Question: {question.question}\n", list[str](), "", False
    for left in range(STEPS, 0, -1):
        hint = "Your line:" if left > 1 else "This is the last step. Your line, which begins with answer:"
        wanted = Decoding(max_tokens=STEP_TOKENS, stop=("\n",))
        line = model.complete(Prompt(SYSTEM, (), f"{told}\n{hint}"), wanted).text.strip()
        tool, _, argument = line.replace(":", "", 1).partition(" ")
        is_repeated = line in steps
        steps.append(line)
        if tool == "answer" or left == 1:
            answer = argument if tool == "answer" else line
            break
        result = (
            "This step was done already. Use other words."
            if is_repeated
            else use_tool(tool, argument.strip())[:RESULT_CHARS]
        )
        is_seen = is_seen or holds(result, question.stated)
        told += f"\n> {line}\n{result}\n"
    is_right = judged(question, answer, abstained=False) == "right"
    row = {"id": question.id, "question": question.question, "steps": steps, "answer": answer}
    return row | {"answered": is_right, "seen": is_seen or is_right}


def result_of(base: KnowledgeBase, embedder: Embedder, tool: str, argument: str) -> str:
    """What a tool says, in one text. Mistakes are told, so that the model can mend them."""
    everything = Scope()
    try:
        if tool == "search":
            hits = base.search(argument, embedder, 3)[1]
            return "\n".join(f"{each.passage.document}: {each.passage.text[:360]}" for each in hits) or "Nothing found."
        if tool == "grep":
            matches = lookup.grep(base, everything, argument, limit=6).matches
            return "\n".join(f"{each.document} {each.start}: {each.line[:160]}" for each in matches) or "Nothing found."
        if tool == "find":
            return "\n".join(lookup.find(base, everything, argument)[:10]) or "Nothing found."
        if tool == "read":
            document, _, start = argument.rpartition(" ")
            if not start.isdigit():
                document, start = argument, "0"
            return lookup.read(base, everything, document, start=int(start), length=RESULT_CHARS).text
    except OpenBookError as error:
        return str(error)
    return f"There is no tool {tool!r}. Begin with search, grep, find, read or answer."


if __name__ == "__main__":
    main()
