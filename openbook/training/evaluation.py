"""Evaluation on the dev data: the loss, exact answers, and a few sample answers.

If each token of an accepted answer is the likeliest after those before it, greedy decoding gives exactly that answer. So
one forward pass counts exact matches without generating.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.nn import functional

from openbook.inference.tokenizer import PromptTokenizer
from openbook.training.attention import batch_of
from openbook.training.loop import EvalResult
from openbook.training.network import learned_logits
from openbook.training.recipe import Recipe
from openbook.training.trees import Row, Tree, micro_batches, row_of

MAX_WRONG_ABSTENTIONS = 0.1  # share of the questions that have an answer
SAMPLES = 6
SAMPLE_TOKENS = 24
TEXT_PROMPT_TOKENS = 32  # of a sample of plain text


@dataclass(frozen=True, slots=True)
class BranchScore:
    """`loss` is the sum over `tokens` learned tokens; `abstention` the probability of an abstention.

    `exact`: greedy decoding would give this answer. Its first token may come second to the abstention's, which has its own
    threshold.
    """

    kind: str
    question: str
    loss: float
    tokens: int
    exact: bool
    abstention: float


def evaluate(network: Any, trees: Sequence[Tree], recipe: Recipe, step: int) -> EvalResult:
    """Evaluate `trees`, which must not be empty."""
    network.eval()
    # The first token identifies an abstention: the recipe's abstention begins with a word that is rare in answers.
    abstentions = (b.tokens[b.learn_start] for tree in trees for b in tree.branches if b.kind == "abstention")
    abstention = next(abstentions, None)
    scores: list[BranchScore] = []
    for group in micro_batches(trees, range(len(trees)), recipe.loop.call_tokens):
        scores += branch_scores(network, [row_of(trees[i]) for i in group], abstention)
    loss = sum(score.loss for score in scores) / max(1, sum(score.tokens for score in scores))
    numbers = {"loss": loss}
    if recipe.objective.kind == "reader":
        numbers |= reader_numbers(scores)
    return EvalResult(step, numbers["score"] if recipe.evaluation.metric == "score" else -loss, numbers)


@torch.no_grad()
def branch_scores(network: Any, rows: Sequence[Row], abstention: int | None = None) -> list[BranchScore]:
    """One score per branch, in order. `abstention`: the first token of an abstention."""
    batch = batch_of(rows)
    logits = learned_logits(network, batch).cpu()
    losses = functional.cross_entropy(logits, batch.targets, reduction="none").tolist()
    chances = logits.softmax(-1)[:, abstention].tolist() if abstention is not None else [0.0] * len(losses)
    right = (logits.argmax(-1) == batch.targets).tolist()
    if abstention is not None:
        logits[:, abstention] = -torch.inf
    right_if_answered = (logits.argmax(-1) == batch.targets).tolist()
    found: list[BranchScore] = []
    start = 0
    for row in rows:
        for number, branch in enumerate(row.tree.branches):
            end = start + row.owners.count(number)
            found.append(
                BranchScore(
                    kind=branch.kind,
                    question=f"{row.tree.origin}/{branch.key}",
                    loss=sum(losses[start:end]),
                    tokens=end - start,
                    exact=(right[start] or right_if_answered[start]) and all(right[start + 1 : end]),
                    abstention=chances[start],
                )
            )
            start = end
    return found


def reader_numbers(scores: Sequence[BranchScore]) -> dict[str, float]:
    """The reader's numbers: shares from 0 to 1; a share of nothing is left out.

    declines_above: the threshold for `abstention`; exact: answerable questions with an accepted answer; abstained_wrongly:
    answerable questions without an answer; abstained_rightly: unanswerable questions without an answer; score: the mean of
    exact and abstained_rightly.
    """
    by_question: dict[str, list[BranchScore]] = {}
    for score in scores:
        if score.kind == "answer":
            by_question.setdefault(score.question, []).append(score)
    unanswerable = [score.abstention for score in scores if score.kind == "abstention"]
    answerable = [each[0].abstention for each in by_question.values()]
    threshold = abstention_threshold(answerable, unanswerable)
    exact = [any(s.exact for s in each) and each[0].abstention < threshold for each in by_question.values()]
    shares = {
        "exact": exact,
        "abstained_wrongly": [chance >= threshold for chance in answerable] if unanswerable else [],
        "abstained_rightly": [chance >= threshold for chance in unanswerable],
    }
    numbers = {name: sum(values) / len(values) for name, values in shares.items() if values}
    parts = [numbers[name] for name in ("exact", "abstained_rightly") if name in numbers]
    numbers["score"] = sum(parts) / len(parts)
    if answerable and unanswerable:
        numbers["declines_above"] = threshold
    return numbers


def abstention_threshold(answerable: Sequence[float], unanswerable: Sequence[float]) -> float:
    """The abstention probability from which the model abstains: 0.05 to 0.95; 0.5 if a kind of question is missing.

    The lowest value that abstains from at most `MAX_WRONG_ABSTENTIONS` of the answerable questions, or 0.95.
    """
    if not answerable or not unanswerable:
        return 0.5
    candidates = [i / 100 for i in range(5, 96)]
    most = MAX_WRONG_ABSTENTIONS * len(answerable)
    return next((c for c in candidates if sum(chance >= c for chance in answerable) <= most), candidates[-1])


@torch.no_grad()
def sample_answers(network: Any, trees: Sequence[Tree], tokenizer: PromptTokenizer) -> list[dict[str, str]]:
    """Samples from the first trees, alternately with and without an answer."""
    network.eval()
    model = tokenizer.model
    found = []

    def text(tokens: Sequence[int]) -> str:
        return b"".join(map(model.piece, tokens)).decode(errors="replace").strip()

    for number, tree in enumerate(trees[:SAMPLES]):
        kind = "answer" if number % 2 == 0 else "abstention"
        branch = next((b for b in tree.branches if b.kind == kind), tree.branches[0])
        start = branch.learn_start or min(TEXT_PROMPT_TOKENS, len(branch.tokens) // 2)
        asked = replace(branch, tokens=branch.tokens[:start], learn_start=start - 1, skipped=())
        answer = _greedy(network, tree.with_branches([asked]), model.ends_generation)
        question = _last_turn(asked.tokens, model.ends_generation)
        end = branch.skipped[0][0] if branch.skipped else len(branch.tokens)  # of a conversation's first answer
        expected = branch.tokens[start : min(end, start + SAMPLE_TOKENS)]
        found.append({"question": text(question), "expected": text(expected), "answer": text(answer)})
    return found


def _greedy(network: Any, tree: Tree, ends: Callable[[int], bool]) -> list[int]:
    """The greedy continuation of the tree's only branch."""
    from transformers import DynamicCache

    batch, cache = batch_of([row_of(tree)]), DynamicCache()
    tokens, positions = batch.tokens.to(network.device), batch.positions.to(network.device)
    pieces: Any = batch.pieces
    written: list[int] = []
    while len(written) < SAMPLE_TOKENS:
        read = network.model(input_ids=tokens, position_ids=positions, pieces=pieces, cache=cache, use_cache=True)
        token = int(network.lm_head(read.last_hidden_state[:, -1]).argmax())
        if ends(token):
            break
        written.append(token)
        tokens, positions, pieces = tokens.new_tensor([[token]]), positions[:, -1:] + 1, None
    return written


def _last_turn(prompt: Sequence[int], ends: Callable[[int], bool]) -> Sequence[int]:
    """The last message: the template writes the turn's end and the answer's beginning after it."""
    places = [-1, *(i for i, token in enumerate(prompt) if ends(token))]
    return prompt[places[-2] + 1 : places[-1]] if len(places) > 1 else prompt
