"""Records answers of the default model with what shows whether they are right, to fit and to measure certainty.

    python recipes/answer_records.py reading --out FOLDER [--contexts N]
    python recipes/answer_records.py natural --out FOLDER --documents FOLDER [--half development|reporting]

`reading`: questions of `recipes/data/reading-train.jsonl.gz` about one to four passages that BM25 finds, chosen as `answerability.py` chooses
them; half of them have an answer there. One is right if an accepted answer stands in it. `natural`: those of `benchmarks/data/questions.jsonl`
but for summaries, answered by `ask` and judged by their facts; `--documents` as for `benchmarks.natural_questions`. Nothing is declined, so that
answers below the probe's limit are known too. A run continues where it stopped.

`answers.jsonl` gets a row an answer, with the signals of `openbook.answers.certainty`; `N.npy` what the probe's layer gave, float16 [3, width]: for the
last token before the answer, for its end, and on average over it.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.natural_questions import OTHERS, judged, questions
from benchmarks.stored import default_embedder, stored
from openbook.answers.ask import ask, cite, signals_of
from openbook.answers.prompts import reading_prompt
from openbook.answers.reading import PassagePlan, Reading, final_answer
from openbook.answers.retrieval import Corpus, Options
from openbook.core.config import load_settings
from openbook.core.parallel import Cancelled, never, silent
from openbook.core.records import Completion, Decoding, Hit, ModelIdentity, Passage, Prompt
from openbook.inference.answerability import probe_of
from openbook.inference.frozen import FrozenModel
from openbook.inference.kv_cache import KVCache
from openbook.inference.llamacpp import LlamaCppEngine
from openbook.knowledge.docs_cache import for_documents
from recipes.answerability import SHARES, drawn

MAX_TOKENS, MAX_PROMPT_TOKENS = 160, 1_700
LONG = ("medicine", "long")  # kinds whose accepted answers are whole paragraphs, by which nothing is judged


class RecordingEngine(LlamaCppEngine):
    """`states` and `last`: what was seen of the last answer to a prompt with passages."""

    states: NDArray[np.float16]
    last: Completion

    def generate(
        self,
        prompt: Prompt,
        decoding: Decoding,
        cancelled: Cancelled = never,
        look: Any = silent,
        progress: Any = silent,
    ) -> Generator[str, None, Completion]:
        completion = yield from super().generate(replace(prompt, declines=False), decoding, cancelled, look)
        if prompt.passages:
            self.last = completion
        return completion

    def _write(self, context: Any, request: Any, logits: Any, sequence: int, look: Any) -> Any:
        states, evaluate = [context.hidden_state], context.evaluate

        def tapped(blocks: Sequence[Any], *, tap: bool = False) -> Any:
            found = evaluate(blocks, tap=True)
            states.append(context.hidden_state)
            return found

        context.evaluate = tapped
        try:
            yield from super()._write(context, request, logits, sequence, look)
        finally:
            del context.evaluate
        self.states = np.stack([states[0], states[-1], np.mean(states, axis=0)]).astype(np.float16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("reading", "natural"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--contexts", type=int, default=400)
    parser.add_argument("--documents", type=Path)
    parser.add_argument("--half", choices=("development", "reporting"), default="development")
    options = parser.parse_args()
    reference = stored(load_settings().model)
    identity = ModelIdentity(reference.name, reference.digest, "verified")
    options.out.mkdir(parents=True, exist_ok=True)
    probe = probe_of(reference)
    with closing(RecordingEngine(reference.main_file, identity=identity, probe=probe, states=KVCache())) as engine:
        if options.what == "reading":
            rows = reading(engine, options.contexts, recorded(options.out))
        else:
            rows = natural(engine, options.documents.resolve(), options.half, recorded(options.out))
        for row in rows:
            np.save(options.out / f"{row['id']}.npy", engine.states)
            with (options.out / "answers.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
            print(row["id"], row["right"], row["answer"][:100].replace("\n", " "), flush=True)


def recorded(out: Path) -> set[str]:
    file = out / "answers.jsonl"
    return (
        {json.loads(line)["id"] for line in file.read_text(encoding="utf-8").splitlines()} if file.exists() else set()
    )


def reading(engine: RecordingEngine, count: int, done: set[str]) -> Iterator[dict[str, Any]]:
    embedder, model = default_embedder(), FrozenModel(engine)
    for number, (kind, placed, asked) in enumerate(contexts(count)):
        hits = [Hit(Passage(f"p{i}", f"{i}", place, 0, len(t), None, (), t)) for i, (place, t) in enumerate(placed)]
        for i, (question, accepted) in enumerate(asked.items()):
            prompt = reading_prompt(question, placed)
            if (name := f"{number}-{i}") in done or engine.count_prompt_tokens(prompt) > MAX_PROMPT_TOKENS:
                continue
            read = Reading(
                PassagePlan("checked", hits), hits, model.complete(prompt, Decoding(max_tokens=MAX_TOKENS)), hits
            )
            text, abstained = final_answer(read, model)
            if not abstained:
                signals = asdict(signals_of(cite(text, question, read, embedder), engine.last))
                row = {"id": name, "context": str(number), "kind": kind, "question": question, "answer": text}
                yield row | {"right": holds_accepted(text, accepted)} | signals


def contexts(count: int) -> Iterator[tuple[str, list[tuple[str, str]], dict[str, list[str]]]]:
    """(kind, (place, text) of each passage, questions with their accepted answers, none where no passage has one). Always the same."""
    shares = {kind: share for kind, share in SHARES.items() if kind not in LONG}
    for kind, placed, asked, read in drawn(random.Random("certainty"), count, shares, 0.6):
        accepted = {each.question: list(each.answers) for line in read for each in line.questions}
        yield kind, placed, {q: accepted.get(q, []) if is_stated else [] for q, is_stated in asked.items()}


def natural(engine: RecordingEngine, documents: Path, half: str, done: set[str]) -> Iterator[dict[str, Any]]:
    settings, embedder, model = load_settings(), default_embedder(), FrozenModel(engine)
    asked = questions(half, OTHERS)
    random.Random(half).shuffle(asked)
    with ExitStack() as stack:
        bases: dict[str, Any] = {}
        for each in asked:
            if each.kind == "summary" or each.id in done:
                continue
            if each.corpus not in bases:
                opened = for_documents([(documents / each.corpus).resolve()], settings.derived_dir, embedder)[0]
                bases[each.corpus] = stack.enter_context(closing(opened))
            given = ask(
                each.question,
                model,
                Corpus(bases[each.corpus], embedder),
                replace(Options.of(settings), earlier=each.earlier),
            )
            if given.declined:
                continue
            read = Reading(PassagePlan("checked", given.passages), given.passages, engine.last, given.passages)
            signals = asdict(signals_of(cite(given.answer, each.question, read, embedder), engine.last))
            row = {
                "id": each.id,
                "context": each.id,
                "kind": each.kind,
                "question": each.question,
                "answer": given.answer,
            }
            yield row | {"right": judged(each, given.answer, abstained=False) == "right"} | signals


def holds_accepted(answer: str, accepted: Sequence[str]) -> bool:
    """Whether one of the accepted answers stands in the answer; yes, no and maybe at its beginning or behind "answer is"."""
    said = f" {plain(answer)} "
    for each in accepted:
        wanted = plain(re.sub(r"^(?:the|a|an) ", "", each.lower()))
        pattern = rf" (?:.* answer is )?{wanted} " if wanted in ("yes", "no", "maybe") else rf".* {re.escape(wanted)} "
        if re.match(pattern, said):
            return True
    return False


def plain(text: str) -> str:
    return " ".join(re.findall(r"[\w.%$€£-]*\w", re.sub(r"(?<=\d),(?=\d{3})", "", text.lower())))


if __name__ == "__main__":
    main()
