"""Answers of a model with what shows whether they are right: for fitting and measuring how certain an answer is.

    python recipes/answer_records.py reading --out FOLDER [--contexts N]
    python recipes/answer_records.py natural --out FOLDER --documents FOLDER [--half development|reporting]

`reading`: questions of `recipes/data/reading-train.jsonl.gz` about one to four passages that BM25 finds, as in `answerability.py`, half of
them with an answer there. `natural`: those of `benchmarks/data/questions.jsonl`, answered by `ask`. Nothing is declined by the
probe, so that answers below its limit are known too. A run goes on where it stopped. `answers.jsonl` gets a row an answer, and
`N.npy` what the layers `LAYERS` gave: float16 [place, layer, width], at the end of the question, at the end of the answer, and behind `ASKED`.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import recipes.answerability as fitting
from benchmarks.natural_questions import OTHERS, judged, questions
from benchmarks.stored import default_embedder
from openbook.answer import Options, Reading, ask, final_answer
from openbook.config import load_settings
from openbook.conversation import condensed
from openbook.inference import llamalib
from openbook.inference.answerability import HiddenStateTap, _ggml, probe_of
from openbook.inference.decoding import log_softmax
from openbook.inference.frozen import FrozenModel
from openbook.inference.kv_cache import KVCache
from openbook.inference.llamacpp import LlamaCppEngine, Look
from openbook.inference.llamalib import Context
from openbook.knowledge.docs_cache import for_documents
from openbook.models import ModelStore, ensure
from openbook.parallel import Cancelled, never
from openbook.prompts import reading_prompt
from openbook.records import Completion, Decoding, ModelIdentity, Prompt
from openbook.training.reader_objective import WordIndex

LAYERS = (14, 18, 21, 24)
PROBED = 18
ASKED = "\n<|im_start|>user\nIs that answer right, and do the excerpts state all of it? Answer yes or no.<|im_end|>\n<|im_start|>assistant\n"
MAX_TOKENS = 160


class LayersTap(HiddenStateTap):
    """Copies what all `LAYERS` give; `state` is that of the probe's layer."""

    def __init__(self, ffi: Any, layer: int, width: int, on_error: Callable[..., bool]) -> None:
        self._layer, self._wanted = layer, False
        self.all: dict[int, NDArray[np.float32]] = {}
        names, ggml, size = {f"l_out-{each}".encode(): each for each in LAYERS}, _ggml(ffi), width * 4

        @ffi.callback("bool(struct ggml_tensor *, bool, void *)", error=True, onerror=on_error)  # type: ignore[untyped-decorator]
        def callback(tensor: Any, before: bool, _data: Any) -> bool:
            if not self._wanted:
                return not before
            found = names.get(ffi.string(ggml.ggml_get_name(tensor)))
            if found is not None and not before:
                state = np.empty(width, np.float32)
                target = ffi.from_buffer(state, require_writable=True)
                ggml.ggml_backend_tensor_get(tensor, target, ggml.ggml_nbytes(tensor) - size, size)
                self.all[found] = state
            return found is not None or not before

        self.callback = callback

    @property
    def _state(self) -> NDArray[np.float32] | None:
        return self.all.get(self._layer)

    @_state.setter
    def _state(self, value: object) -> None:
        self.all = {}


llamalib.HiddenStateTap = LayersTap  # type: ignore[attr-defined]


class RecordingEngine(LlamaCppEngine):
    """`last`: what was seen of the last answer to a prompt with passages."""

    last: dict[str, Any]

    def generate(
        self, prompt: Prompt, decoding: Decoding, cancelled: Cancelled = never, look: Look = lambda row: None
    ) -> Generator[str, None, Completion]:
        return (yield from super().generate(replace(prompt, declines=False), decoding, cancelled, look))

    def _write(
        self,
        context: Context,
        request: Any,
        logits: NDArray[np.float32],
        sequence: int,
        cancelled: Cancelled,
        look: Look,
    ) -> Generator[str, None, Any]:
        tap = context._tap
        assert isinstance(tap, LayersTap)
        assert self._probe is not None

        def stacked() -> NDArray[np.float16]:
            return np.stack([tap.all[layer] for layer in LAYERS]).astype(np.float16)

        places = [stacked()]
        probability = self._probe.probability(context.hidden_state)
        result = yield from super()._write(context, request, logits, sequence, cancelled, look)
        decoder = request.decoder
        end = [] if decoder.finish == "end" and decoder.token < 0 else [decoder.token]
        if decoder.finish != "end":
            end += self._model.tokenize("<|im_end|>", control=True)
        context.evaluate([(sequence, end)], tap=True)
        places.append(stacked())
        (row,) = context.evaluate([(sequence, self._model.tokenize(ASKED, control=True))], tap=True)
        places.append(stacked())
        odds = log_softmax(row)
        words = {
            w: max(odds[self._model.tokenize(v, control=False)[0]] for v in (w, w.title(), " " + w))
            for w in ("yes", "no")
        }
        self.last = {
            "at_question": probability,
            "yes": 1 / (1 + math.exp(words["no"] - words["yes"])),
            "log_probs": [round(p, 3) for p in decoder._log_probs],
            "states": np.stack(places),
        }
        return result


def plain(text: str) -> str:
    return " ".join(re.findall(r"[\w.%$€£-]*\w", re.sub(r"(?<=\d),(?=\d{3})", "", text.lower())))


def gold_judged(answer: str, gold: list[str]) -> bool:
    """Whether one of the accepted answers stands in the answer, or at its beginning if that is yes or no."""
    said = f" {plain(answer)} "
    for each in gold:
        wanted = plain(re.sub(r"^(?:the|a|an) ", "", each.lower()))
        if wanted in ("yes", "no", "maybe"):
            if re.match(rf" (?:.* answer is )?{wanted} ", said):
                return True
        elif f" {wanted} " in said or f" {wanted}. " in said:
            return True
    return False


def contexts(seed: str, count: int) -> Iterator[list[tuple[Prompt, dict[str, Any]]]]:
    """As `answerability.contexts`, with the accepted answers."""
    by_kind: dict[str, list[Any]] = {}
    for line in fitting.lines_of_one_passage():
        by_kind.setdefault(line.kind, []).append(line)
    indexes = {kind: WordIndex([f"{line.title} {line.passage}" for line in by_kind[kind]]) for kind in fitting.SHARES}
    chance = random.Random(seed)
    while count:
        (kind,) = chance.choices(list(fitting.SHARES), list(fitting.SHARES.values()))
        lines = by_kind[kind]
        first = chance.choice(lines)
        query = f"{chance.choice(first.questions).question} {first.title}"
        found = [line for i in indexes[kind].best(query, fitting.NEIGHBOURS + 1) if (line := lines[i]) is not first]
        near = [first, *found] if chance.random() < 0.6 else [*found, first]
        (size,) = chance.choices((1, 2, 3, 4), (1, 1, 2, 6))
        read, unread = near[:size], near[size:]
        chance.shuffle(read)
        asked = fitting.asked_about(read, sorted(unread, key=lambda line: line is not first), chance)
        placed = [(fitting.place_of(line.title, chance), line.passage) for line in read]
        gold = {each.question: list(each.answers) for line in read for each in line.questions}
        if asked:
            count -= 1
            yield [
                (
                    reading_prompt(question, placed),
                    {
                        "kind": kind,
                        "question": question,
                        "stated": stated,
                        "gold": gold.get(question, []) if stated else [],
                        "passages": placed,
                    },
                )
                for question, stated in asked.items()
            ]


def reading(engine: RecordingEngine, out: Path, count: int) -> None:
    numbers = {json.loads(line)["context"] for line in lines_of(out)}
    for number, asked in enumerate(contexts("certainty", count)):
        if number in numbers or engine.count_prompt_tokens(asked[0][0]) > 1_700:
            continue
        rows, states = [], []
        for prompt, about in asked:
            completion = finished(engine.generate(prompt, Decoding(max_tokens=MAX_TOKENS)))
            text, abstained = final_answer(Reading("checked", (), completion), FrozenModel(engine))
            seen = dict(engine.last)
            states.append(seen.pop("states"))
            right = not abstained and gold_judged(text, about["gold"])
            rows.append(
                {
                    **about,
                    **seen,
                    "context": number,
                    "answer": text,
                    "abstained": abstained,
                    "right": right,
                    "finish": completion.finish_reason,
                }
            )
            if len(rows) > 1:
                rows[-1].pop("passages")
        np.save(out / f"{number}.npy", np.stack(states))
        with (out / "answers.jsonl").open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
        print(number, len(rows), sum(r["right"] for r in rows), sum(r["stated"] for r in rows), flush=True)


def finished(stream: Generator[str, None, Completion]) -> Completion:
    while True:
        try:
            next(stream)
        except StopIteration as end:
            completion: Completion = end.value
            return completion


def lines_of(out: Path) -> list[str]:
    file = out / "answers.jsonl"
    return file.read_text().splitlines() if file.exists() else []


def natural(engine: RecordingEngine, out: Path, documents: Path, half: str) -> None:
    settings, embedder = load_settings(), default_embedder()
    asked = questions(half, OTHERS)
    random.Random(half).shuffle(asked)
    done = {json.loads(line)["id"] for line in lines_of(out)}
    model = FrozenModel(engine)
    with ExitStack() as stack:
        bases: dict[str, Any] = {}
        for number, question in enumerate(asked):
            if question.id in done:
                continue
            if question.corpus not in bases:
                folder = documents.resolve() / question.corpus
                bases[question.corpus] = stack.enter_context(
                    closing(for_documents([folder], settings.cache_dir, embedder)[0])
                )
            query = condensed(question.earlier, question.question)
            engine.last = {}
            given = ask(question.question, model, bases[question.corpus], embedder, Options.of(settings), query=query)
            seen = dict(engine.last)
            states = seen.pop("states", None)
            if states is not None:
                np.save(out / f"{question.id}.npy", states)
            value = given.to_json()
            value.pop("receipt")
            row = {
                "id": question.id,
                "kind": question.kind,
                "corpus": question.corpus,
                "query": query,
                "verdict": judged(question, given.answer, given.abstained),
                **seen,
                **value,
            }
            with (out / "answers.jsonl").open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(
                number,
                question.id,
                row["verdict"],
                round(seen.get("at_question", -1), 2),
                round(seen.get("yes", -1), 2),
                given.confidence,
                given.answer[:80],
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("reading", "natural"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--contexts", type=int, default=400)
    parser.add_argument("--documents", type=Path)
    parser.add_argument("--half", default="development")
    options = parser.parse_args()
    settings = load_settings()
    reference = ensure(ModelStore(settings.models_dir), settings.model)
    options.out.mkdir(parents=True, exist_ok=True)
    identity = ModelIdentity(reference.name, reference.digest, "verified")
    with closing(
        RecordingEngine(reference.main_file, identity=identity, probe=probe_of(reference), states=KVCache())
    ) as engine:
        if options.what == "reading":
            reading(engine, options.out, options.contexts)
        else:
            natural(engine, options.out, options.documents, options.half)


if __name__ == "__main__":
    main()
