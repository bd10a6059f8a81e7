"""Fits the probe that tells how likely the passages of a prompt state the answer, for one model that was not trained to read.

    python recipes/answerability.py MODEL --layer N --states FILE.npz --declines-below P [--contexts N] [--single N]

The questions are those of `recipes/data/reading-train.jsonl.gz`. One to four passages that BM25 finds for one of them are read together, as
`openbook ask` reads windows. Asked are questions that one of these passages answers, those of the set that have no answer, and those
whose own passage was found as well but is not among them. Then single passages are read. About each, as many questions are asked that it
only seems to answer (SQuAD 2.0) as questions that it answers. `--states` keeps what the layer gave; a run continues from it.

Writes the probe into `openbook/inference/data/answerability.json` and prints how well it tells the two apart, by cross-validation over the contexts.
It needs the extra `train`.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from openbook.answers.prompts import reading_prompt
from openbook.core.config import load_settings
from openbook.core.records import ModelIdentity, Prompt
from openbook.inference.answerability import PROBES, AnswerabilityProbe
from openbook.inference.llamacpp import LlamaCppEngine
from openbook.models import ModelStore, ensure
from openbook.training.reader_objective import PassageLine, WordIndex

DATA = Path(__file__).parent / "data" / "reading-train.jsonl.gz"
# How often a context is made of each kind of text.
SHARES = {"squad": 6, "wiki": 3, "natural": 3, "finance": 3, "reviews": 2, "policies": 2, "tables": 2, "long": 2, "medicine": 2, "yes-no": 1}  # fmt: skip
PASSAGES, OFTEN = (1, 2, 3, 4), (2, 1, 1, 6)
NEIGHBOURS = 7
EACH = 4  # questions with and without an answer, in each context
MAX_TOKENS = 1_700
SHORT_CHARS = 60  # an answer up to which it would be found in other passages word for word
PENALTIES = (1e2, 3e2, 1e3)  # of the squares of the weights
SINGLE = 375  # passages that are read alone
PARTS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a stored model")
    parser.add_argument("--layer", type=int, required=True, help="counted from 0")
    parser.add_argument("--states", type=Path, required=True)
    parser.add_argument("--contexts", type=int, default=119)
    parser.add_argument("--single", type=int, default=SINGLE)
    parser.add_argument(
        "--declines-below", type=float, required=True, help="the limit that goes with it, a probability"
    )
    options = parser.parse_args()
    settings = load_settings()
    reference = ensure(ModelStore(settings.models_dir), options.model)
    identity = ModelIdentity(reference.name, reference.digest, "verified")
    looking = AnswerabilityProbe(options.layer, 0.0, (0.0,) * (reference.manifest.embedding_length or 0), 0.0)
    with closing(LlamaCppEngine(reference.main_file, identity=identity, probe=looking)) as engine:
        states, stated, of = collected(engine, options.contexts, options.single, options.states)
    scale = states.std(axis=0) + 1e-6
    for penalty in PENALTIES:
        parts = np.random.default_rng(0).permutation(of.max() + 1)[of] % PARTS
        odds = np.empty(len(of))
        for part in range(PARTS):
            weights, bias = fitted(states[parts != part] / scale, stated[parts != part], penalty)
            odds[parts == part] = states[parts == part] / scale @ weights + bias
        print(f"penalty {penalty:g}: {told_apart(odds, stated)}")
    weights, bias = fitted(states / scale, stated, PENALTIES[1])
    rounded = tuple(float(f"{weight:.4g}") for weight in weights / scale)
    kept = json.loads(PROBES.read_text(encoding="utf-8"))
    probe = AnswerabilityProbe(options.layer, float(f"{bias:.4g}"), rounded, options.declines_below)
    kept[reference.manifest.files[reference.manifest.main_file].sha256] = asdict(probe)
    PROBES.write_text(json.dumps(kept) + "\n", encoding="utf-8")


def collected(
    engine: LlamaCppEngine, several: int, single: int, path: Path
) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.int64]]:
    """For each question what the layer gave, whether the passages state the answer, and the number of its context."""
    kept: dict[str, Any] = dict(np.load(path)) if path.exists() else {}
    rows = list(zip(*(kept.get(name, ()) for name in ("states", "stated", "of")), strict=True))
    done, before = int(kept.get("done", 0)), int(kept.get("several", several))
    if before != several:
        raise SystemExit(
            f"{path} was made with --contexts {before}. Go on with that, or choose another file with --states."
        )
    for number, prompts in enumerate(chain(contexts(several), single_passages(single))):
        if number < done or engine.count_prompt_tokens(prompts[0][0]) > MAX_TOKENS:
            continue
        rows += [(engine.hidden_state(prompt).astype(np.float16), is_stated, number) for prompt, is_stated in prompts]
        states, stated, of = map(np.array, zip(*rows, strict=True))
        part = path.with_suffix(".part.npz")
        np.savez(part, states=states, stated=stated, of=of, done=number + 1, several=several)
        part.replace(path)
        print(f"{number + 1} of {several + single} contexts, {len(rows)} questions", flush=True)
    states, stated, of = map(np.array, zip(*rows, strict=True))
    return states.astype(np.float32), stated, of


def contexts(count: int) -> Iterator[list[tuple[Prompt, bool]]]:
    """Questions about the same passages, each with whether they state the answer. The same at each call."""
    for _, placed, asked, _ in drawn(random.Random("answerability"), count, SHARES, 0.5):
        yield [(reading_prompt(question, placed), is_stated) for question, is_stated in asked.items()]


def drawn(
    chance: random.Random, count: int, shares: Mapping[str, int], first_read: float
) -> Iterator[tuple[str, list[tuple[str, str]], dict[str, bool], list[PassageLine]]]:
    """(kind, (place, text) of what is read, the questions asked about it with whether it states the answer, the lines that are read).

    `shares`: how often each kind is drawn; `first_read`: how often the passage is read that the others were found for.
    """
    by_kind: defaultdict[str, list[PassageLine]] = defaultdict(list)
    for line in lines_of_one_passage():
        by_kind[line.kind].append(line)
    indexes = {kind: WordIndex([f"{line.title} {line.passage}" for line in by_kind[kind]]) for kind in shares}
    while count:
        (kind,) = chance.choices(list(shares), list(shares.values()))
        lines = by_kind[kind]
        first = chance.choice(lines)
        query = f"{chance.choice(first.questions).question} {first.title}"
        found = [line for i in indexes[kind].best(query, NEIGHBOURS + 1) if (line := lines[i]) is not first]
        near = [first, *found] if chance.random() < first_read else [*found, first]
        (size,) = chance.choices(PASSAGES, OFTEN)
        read, unread = near[:size], near[size:]
        chance.shuffle(read)
        asked = asked_about(read, sorted(unread, key=lambda line: line is not first), chance)
        placed = [(place_of(line.title, chance), line.passage) for line in read]
        if asked:
            count -= 1
            yield kind, placed, asked, read


def single_passages(count: int) -> Iterator[list[tuple[Prompt, bool]]]:
    lines = [line for line in lines_of_one_passage() if line.kind == "squad"]
    lines = [line for line in lines if {bool(each.answers) for each in line.questions} == {True, False}]
    chance = random.Random("hard")
    chance.shuffle(lines)
    for line in lines[:count]:
        stated = [each.question for each in line.questions if each.answers]
        not_stated = [each.question for each in line.questions if not each.answers]
        size = min(len(stated), len(not_stated))
        asked = dict.fromkeys(stated[:size], True) | dict.fromkeys(not_stated[:size], False)
        placed = [(place_of(line.title, chance), line.passage)]
        yield [(reading_prompt(question, placed), is_stated) for question, is_stated in asked.items()]


def lines_of_one_passage() -> list[PassageLine]:
    lines = map(PassageLine.model_validate_json, gzip.decompress(DATA.read_bytes()).splitlines())
    return [line for line in lines if line.passage]


def asked_about(read: Sequence[PassageLine], unread: Sequence[PassageLine], chance: random.Random) -> dict[str, bool]:
    text = plain(" ".join(line.passage for line in read))
    own = [each for line in read for each in line.questions]
    others = [
        each
        for line in unread
        for each in line.questions
        if each.answers and not any(plain(answer) in text for answer in each.answers if len(answer) <= SHORT_CHARS)
    ]
    stated = [each.question for each in own if each.answers]
    near = [each.question for each in own if not each.answers]
    chance.shuffle(stated)
    chance.shuffle(near)
    # The passage that the others were found for comes first in `unread`.
    not_stated = [*near[: EACH // 2], *[each.question for each in others]]
    return dict.fromkeys(not_stated[:EACH], False) | dict.fromkeys(stated[:EACH], True)


def place_of(title: str, chance: random.Random) -> str:
    file = re.sub(r"\W+", "-", title.lower()).strip("-") or "notes"
    return chance.choice([title, title, f"{file}.md", f"{file}.pdf, page {chance.randrange(1, 40)}"])


def plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


def fitted(states: NDArray[np.float32], stated: NDArray[np.bool_], penalty: float) -> tuple[NDArray[np.float64], float]:
    """Logistic regression: (weights, bias)."""
    x, y = torch.from_numpy(states.astype(np.float64)), torch.from_numpy(stated.astype(np.float64))
    middle = x.mean(0)
    weights = torch.zeros(x.shape[1] + 1, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([weights], max_iter=500, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        odds = (x - middle) @ weights[:-1] + weights[-1]
        total = torch.nn.functional.binary_cross_entropy_with_logits(odds, y, reduction="sum")
        total = total + penalty / 2 * weights[:-1].square().sum()
        total.backward()
        return total

    optimiser.step(loss)
    found = weights.detach()
    return found[:-1].numpy(), float(found[-1] - middle @ found[:-1])


def told_apart(odds: NDArray[np.float64], stated: NDArray[np.bool_]) -> str:
    ranks = np.argsort(np.argsort(odds))
    yes, no = int(stated.sum()), int((~stated).sum())
    area = (ranks[stated].sum() - yes * (yes - 1) / 2) / (yes * no)
    likely = 1 / (1 + np.exp(-odds))
    loss = -np.log(np.where(stated, likely, 1 - likely)).mean()
    shares = [
        f"under {limit}: {(likely[~stated] < limit).mean():.2f} of {no} not stated, {(likely[stated] < limit).mean():.2f} of {yes} stated"
        for limit in (0.2, 0.3, 0.4, 0.5, 0.75)
    ]
    return f"area under the curve {area:.3f}, loss {loss:.3f}; " + "; ".join(shares)


if __name__ == "__main__":
    main()
