"""Advice on the misses of a diagnosis, with the numbers that support it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from openbook.diagnosis.run_log import Header
from openbook.diagnosis.runner import DEPTH
from openbook.diagnosis.scoring import Share
from openbook.diagnosis.summary import ModelSummary

FEW = 10  # misses; with fewer, the causes are only a hint


@dataclass(frozen=True, slots=True)
class Finding:
    """`what` was found; `do`: what is likely to help, and what is not."""

    what: str
    do: str = ""

    def __str__(self) -> str:
        return f"{self.what} {self.do}".strip()


def advice(summary: ModelSummary) -> tuple[Finding, ...]:
    """The most frequent cause first."""
    if summary.nothing_measured:
        return (
            Finding(
                "Nothing was measured: the model failed on every question.",
                "Put right what the failures say, and run the same command: it asks them again.",
            ),
        )
    findings = [_headline(summary)]
    total = sum(summary.misses.values())
    if not total:
        findings.append(Finding("There are no misses: every answer was right, or rightly said that there is none."))
    for cause, count in summary.misses.items():
        found = _missed(summary, count) if cause == "retriever_miss" else _CAUSES[cause]
        do = f"{_abstaining(summary.header)} {found.do}" if cause == "not_in_the_knowledge_base" else found.do
        what = f"{count / total:.0%} of the misses ({count} of {total}) {found.what}"
        findings.append(Finding(what, do.replace("{model}", shlex.quote(summary.name))))
    findings += _notes(summary, total)
    return tuple(findings)


def _headline(summary: ModelSummary) -> Finding:
    alone, opened, oracle = (summary.right_in[mode] for mode in ("closed_book", "open_book", "oracle"))
    group = summary.overall
    if not alone.of:
        failed = sum(each.failed for kind, each in summary.by_kind.items() if kind != "unanswerable")
        none = f"The model failed on all {failed} questions with an answer" if failed else "No question has an answer"
        return Finding(f"{none}; {summary.abstained} abstained.")
    what = (
        f"Right: {_percent(alone)} alone, {_percent(opened)} with documents, {_percent(oracle)} with the right passage."
    )
    fixed, known = group.verdicts["fixed_by_retrieval"], group.verdicts["known"]
    do = f"Retrieval fixes {fixed}; the model knows {known}."
    return Finding(what, do)


def _percent(found: Share) -> str:
    return "no data" if found.share is None else f"{found.share:.0%} of {found.of}"


_CAUSES = {  # {model}: the name of the model
    "distracted": Finding(
        "are distractions: the passage was given to the reader, and among others it did not answer from it.",
        "Fewer passages (the setting `passages`) are likely to help, and so is a reader that was trained with wrong passages as well.",
    ),
    "reader_gap": Finding(
        "are reader gaps: with the right passage alone, the model does not give the answer.",
        "Only a better reader helps: a larger model, or one trained on reading (openbook train RECIPE; it can train models of "
        "the families llama and qwen2). Training on the facts is not likely to help, and neither are more documents.",
    ),
    "harmed_by_retrieval": Finding(
        "are harmed by retrieval: right alone, wrong with documents.",
        "Look whether the documents contradict the accepted answers. Ask what needs no documents with openbook ask --closed-book --model {model}.",
    ),
    "not_in_the_knowledge_base": Finding(
        "are inventions: no passage holds the answer, and the model gave one all the same.",
        "Where the answer should be there, add the document.",
    ),
}


def _abstaining(header: Header) -> str:
    """Only the strategy "each" supports verbatim quotes."""
    if header.strategy == "each":
        return "Verbatim quotes (openbook ask --quote --model {model}) are likely to help."
    if header.model.name == "reader":
        return "A reader that was trained to abstain on such questions is likely to help."
    return "A reader trained to abstain is likely to help; the local model `reader` is one. It tells names, dates and numbers, and declines most other questions."


def _missed(summary: ModelSummary, misses: int) -> Finding:
    header, cut_off = summary.header, summary.misses_cut_off
    given, depth = header.passages, max(DEPTH, header.passages)
    deeper = summary.misses_within_depth - cut_off
    nowhere = misses - deeper - cut_off
    limit = f"its similarity to the question is below {header.min_similarity:g}"
    limit += f", or it did not fit into {header.context_tokens:,} tokens"
    where = [
        f"in {deeper} it stands at a rank from {given + 1} to {depth}" if deeper else "",
        f"in {cut_off} it stands among the first {given}, but {limit}" if cut_off else "",
        f"in {nowhere} it is not among the first {depth}" if nowhere else "",
    ]
    what = (
        "are retriever misses: the passage is there and the model answers from it, but it was not given to the reader. "
        f"Of these {misses}, {'; '.join(filter(None, where))}."
    )
    if deeper >= max(cut_off, nowhere):
        bound = ", as many as can lie side by side" if header.strategy == "parallel" else ""
        do = (
            f"More passages (the setting `passages`{bound}) reach {deeper} of {misses}; they or a stronger embedder are likely "
            "to help. Training the reader is not."
        )
    else:
        likely = "Another embedder" if cut_off >= nowhere else "Another embedder, smaller passages"
        do = f"{likely} or the documents' own words in the questions may help; "
        do += f"more passages help in only {deeper} of {misses}." if deeper else "more passages will not."
    return Finding(what, do)


def _notes(summary: ModelSummary, misses: int) -> Iterator[Finding]:
    group = summary.overall
    nowhere = group.verdicts["not_in_the_knowledge_base"].count
    expected = summary.by_kind.get("answerable")
    missing = expected.verdicts["not_in_the_knowledge_base"].count if expected else 0
    if missing:
        yield Finding(
            f"Questions with an answer that was not found in any passage: {missing}.",
            "Where no document has it, add one that does: training on single facts costs more. Where one has it in other "
            "words, name the place in the questions (gold), or accept those words.",
        )
    if nowhere and summary.abstained.count:
        yield Finding(f"Where no passage holds the answer, the model said so in {summary.abstained}.")
    if summary.from_memory:
        yield Finding(f"Answers from memory against the passage that was given: {summary.from_memory}.")
    if group.failed:
        yield Finding(
            f"{group.failed} of {group.questions} questions are not counted: the model failed on them.",
            "The same command asks them again.",
        )
    if misses and misses < FEW:
        yield Finding(f"There are only {misses} misses, so their causes are a hint. More questions tell more.")
