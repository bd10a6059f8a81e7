"""A diagnosis as one HTML page that needs nothing else: no network, no other file, and no script for what it says.

Questions, answers and documents are other people's words: every text is escaped, control characters become spaces, and the
page's own policy lets a browser run no script but the one that is part of it.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from openbook.diagnosis.advice import advice
from openbook.diagnosis.comparing import Comparison
from openbook.diagnosis.deciding import reason
from openbook.diagnosis.llm_judge import SecondOpinion
from openbook.diagnosis.observations import Header, Observation, Said, Seen
from openbook.diagnosis.report_style import SCRIPT, STYLE
from openbook.diagnosis.summary import MODES, SHARED, Group, ModelSummary, answer_in
from openbook.diagnosis.verdicts import VERDICTS, Judged, is_right
from openbook.files import replacing, storage_errors

MOST_SHOWN = 250  # questions of one verdict and model
PATH_PARTS = 3  # of a document's path are shown
_JOINERS = "\u200c\u200d"  # invisible, and part of the spelling of some languages
_MODE_NAMES = {"closed_book": "alone", "open_book": "with documents", "oracle": "with the right passage"}

Judgements = Iterable[tuple[Observation, Judged]]


def words(verdict: str) -> str:
    return verdict.replace("_", " ")


def write_report(
    path: Path,
    title: str,
    models: Sequence[tuple[ModelSummary, Judgements]],
    comparisons: Sequence[Comparison] = (),
    sections: Mapping[str, Sequence[str]] = {},
) -> None:
    """One part for each model. Questions are written as they come. `sections`: HTML that follows the part of a model, by its name.

    Raises StorageError.
    """
    with storage_errors(f"write {path}"), replacing(path) as stream:
        stream.writelines(
            f"{part}\n".encode("utf-8", "replace") for part in _page(title, models, comparisons, sections)
        )


def _page(
    title: str,
    models: Sequence[tuple[ModelSummary, Judgements]],
    comparisons: Sequence[Comparison],
    sections: Mapping[str, Sequence[str]],
) -> Iterator[str]:
    policy = f"default-src 'none'; style-src {_digest(STYLE)}; script-src {_digest(SCRIPT)}"
    yield f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{text(title)}</title>'
    yield f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<style>{STYLE}</style></head><body>"
    yield f"<h1>{text(title)}</h1>"
    yield '<p class="soft">What the model knows, what retrieval fixes, and what only a better reader can fix.</p>'
    if comparisons:
        yield from _comparisons(comparisons)
    for number, (summary, judgements) in enumerate(models):
        yield from _model(summary, judgements, number)
        yield from sections.get(summary.name, ())
    yield f"<script>{SCRIPT}</script></body></html>"


def _digest(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def _model(summary: ModelSummary, judgements: Judgements, number: int) -> Iterator[str]:
    group = summary.overall
    yield f"<h2>{text(summary.name)}</h2>"
    failed = f", {group.failed:,} of them failed and not counted in any share" if group.failed else ""
    yield f'<p class="soft">{group.questions:,} questions{failed}; shares with their 95 % interval</p>'
    yield bar(group)
    yield _legend(summary)
    yield '<ul class="advice">'
    for finding in advice(summary):
        yield f"<li><b>{text(finding.what)}</b> {text(finding.do)}</li>"
    yield "</ul>"
    yield from _numbers(summary)
    yield from _groups("kind", summary.by_kind.items())
    yield from _groups("tag", summary.by_tag.items())
    yield from _questions(summary, judgements, number)
    yield from _lineage(summary.header)


def bar(group: Group, *, small: bool = False) -> str:
    """The shares as one bar, as wide as its frame."""
    parts, at = [], 0.0
    for verdict in SHARED:
        width = 1000 * (group.verdicts[verdict].share or 0.0)
        if width:
            name = f"{words(verdict)}: {group.verdicts[verdict]}"
            parts.append(
                f'<rect class="{verdict}" x="{at:.2f}" width="{width:.2f}" height="30"><title>{name}</title></rect>'
            )
        at += width
    classes = "bar small" if small else "bar"
    label = ", ".join(f"{words(v)} {group.verdicts[v].count}" for v in SHARED)
    return f'<svg class="{classes}" viewBox="0 0 1000 30" preserveAspectRatio="none" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def _legend(summary: ModelSummary) -> str:
    group, silent = summary.overall, summary.abstained
    rows = []
    for verdict in SHARED:
        more = f" ({silent.count} said so)" if verdict == "not_in_the_knowledge_base" and silent.of else ""
        rows.append(f'<li><span class="dot {verdict}"></span>{words(verdict)} {group.verdicts[verdict]}{more}</li>')
    if group.failed:
        rows.append(f'<li><span class="dot failed"></span>failed {group.failed}</li>')
    return f'<ul class="legend">{"".join(rows)}</ul>'


def _numbers(summary: ModelSummary) -> Iterator[str]:
    yield "<h3>Right, and what it cost</h3>"
    rows = []
    for mode in MODES:
        cost = summary.costs[mode]
        each = "–" if cost.seconds_each is None else f"{cost.seconds_each:.2f} s"
        tokens = "–" if cost.prompt_tokens is None else f"{cost.prompt_tokens:,} + {cost.answer_tokens:,}"
        rows.append([_MODE_NAMES[mode], str(summary.right_in[mode]), f"{cost.requests:,}", each, tokens])
    yield table(
        ["", "right, of questions with an answer", "requests", "each", "tokens read + written"], rows, numbers=3
    )
    retrieval = summary.retrieval
    yield "<h3>Found</h3>"
    yield f'<p class="soft">Over the {retrieval.questions:,} questions of which a passage is known to hold the answer.</p>'
    found = [[f"among the first {k}", str(each)] for k, each in retrieval.found.items()]
    found.append(["among those given to the reader", str(retrieval.reached)])
    found.append(["mean of 1/rank (MRR)", str(retrieval.mrr)])
    yield table(["a passage that holds the answer is", ""], found)


def _groups(name: str, groups: Iterable[tuple[str, Group]]) -> Iterator[str]:
    rows = [
        [text(key), f"{each.questions:,}", keep(str(each.right)), bar(each, small=True)]
        + [str(each.verdicts[v].count or "–") for v in SHARED]
        for key, each in groups
    ]
    if rows:
        yield f"<h3>By {name}</h3>"
        heads = [name, "questions", "right or rightly silent", "", *map(words, SHARED)]
        yield table(heads, rows, raw=True)


def _lineage(header: Header) -> Iterator[str]:
    decoding = header.decoding
    rows = [
        ["model", f"{header.model.name} ({header.model.digest or 'no digest'}, {header.model.evidence})"],
        ["numeric class", header.numeric_class or "none promised"],
        ["knowledge base", f"{header.knowledge_base}, version {header.knowledge_base_version}"],
        ["embedder", f"{header.embedder.name} ({header.embedder.digest})"],
        ["questions", header.questions],
        ["read", f"{header.strategy}, {header.passages} passages, least similarity {header.min_similarity}"],
        ["decoding", f"temperature {decoding.temperature}, at most {decoding.max_tokens} tokens, seed {decoding.seed}"],
        ["limited to", f"{header.where or 'all documents'}; labels: {', '.join(header.labels) or 'none'}"],
    ]
    yield "<h3>What was measured with what</h3>"
    yield table(["", ""], rows)


def _comparisons(comparisons: Sequence[Comparison]) -> Iterator[str]:
    yield "<h2>One against the other</h2>"
    rows = [
        [f"{c.first} / {c.second}", str(c.both_right), str(c.only_first), str(c.only_second), p_of(c)]
        for c in comparisons
    ]
    yield table(["", "both right", "only the first", "only the second", "McNemar's p"], rows, numbers=4)
    for each in comparisons:
        for note in notes_of(each):
            yield f'<p class="soft">{text(f"{each.first} / {each.second}: {note}")}</p>'


def notes_of(comparison: Comparison) -> list[str]:
    """What is to be known to read a comparison."""
    left_out = f"Questions left out, because only one of the two was asked them: {comparison.left_out:,}."
    failed = f"Questions left out, because at least one of the two failed on them: {comparison.failed:,}."
    return [*comparison.notes, *([left_out] if comparison.left_out else []), *([failed] if comparison.failed else [])]


def p_of(comparison: Comparison) -> str:
    if comparison.p is None:
        return "no data"
    return f"{comparison.p:.3f}" if comparison.p >= 0.001 else "< 0.001"


def opinion_section(opinion: SecondOpinion) -> str:
    """What a judge said of the answers, and where the rules say otherwise."""
    heads = ["question", "accepted", "answer", "given", "by the rules"]
    rows = [
        [
            each.question.question,
            " · ".join(each.question.answers),
            each.answer,
            _MODE_NAMES[each.mode],
            "right" if each.right else "wrong",
        ]
        for each in opinion.disagreements
    ]
    parts = ["<h3>A second opinion</h3>", f"<p>{text(opinion)}</p>"]
    if rows:
        total = opinion.too_mild + opinion.too_strict
        shown = f"where the judge says otherwise{f', the first {len(rows)} of {total:,}' if total > len(rows) else ''}"
        parts += [f'<details class="q"><summary>{shown}</summary>', table(heads, rows), "</details>"]
    return "\n".join(parts)


# --- each question ----------------------------------------------------------------------------------------------------


def _questions(summary: ModelSummary, judgements: Judgements, number: int) -> Iterator[str]:
    yield "<h3>Each question</h3>"
    marks = '<mark class="gold">holds the answer</mark>, <mark class="cited">cited by the answer with documents</mark>'
    yield f'<p class="soft">Marked in passages: {marks}.</p>'
    yield _tools(summary, number)
    yield '<div class="list">'
    shown: Counter[str] = Counter()
    for observation, found in judgements:
        shown[found.verdict] += 1
        if shown[found.verdict] <= MOST_SHOWN:
            yield from _question(observation, found)
    yield "</div>"
    left = sum(max(0, n - MOST_SHOWN) for n in shown.values())
    if left:
        yield f'<p class="soft">{left:,} more questions are in the JSON and the observations; of each verdict the first {MOST_SHOWN} are here.</p>'


def _tools(summary: ModelSummary, number: int) -> str:
    verdicts = "".join(f'<option value="{v}">{words(v)}</option>' for v in VERDICTS)
    tags = "".join(f'<option value="{text(tag)}">{text(tag)}</option>' for tag in summary.by_tag)
    return (
        '<form class="tools" hidden>'
        f'<input type="search" aria-label="Search" placeholder="Words in questions, answers, passages" id="words{number}">'
        f'<select aria-label="Verdict"><option value="">every verdict</option>{verdicts}</select>'
        f'<select aria-label="Tag"><option value="">every tag</option>{tags}</select>'
        '<select aria-label="Order"><option value="">as in the file</option><option value="verdict">by verdict</option>'
        '<option value="id">by id</option><option value="seconds">slowest first</option></select><output class="soft"></output></form>'
    )


def _question(observation: Observation, found: Judged) -> Iterator[str]:
    question = observation.question
    seconds = sum(wording.opened.seconds for wording in observation.asked)
    tags = text(json.dumps(list(question.tags), ensure_ascii=False))
    yield (
        f'<details class="q" data-verdict="{found.verdict}" data-place="{VERDICTS.index(found.verdict)}" '
        f'data-id="{text(question.id)}" data-seconds="{seconds:.3f}" data-tags="{tags}">'
        f'<summary><span class="dot {found.verdict}"></span><bdi>{text(question.question)}</bdi>'
        f'<span class="badge">{words(found.verdict)}{f" · {found.silence}" if found.silence else ""} · '
        f"<bdi>{text(question.id)}</bdi></span></summary>"
    )
    yield f"<p>{text(reason(observation, found))}</p>"
    accepted = " · ".join(f"<bdi>{text(answer)}</bdi>" for answer in question.answers)
    yield f'<p class="soft">Accepted: {accepted or "that the documents do not say"}</p>'
    yield _answers(observation)
    for seen in observation.passages:
        yield _passage(seen, observation)
    yield "</details>"


def _answers(observation: Observation) -> str:
    several = len(observation.asked) > 1
    rows = []
    for wording in observation.asked:
        for mode in MODES:
            said = answer_in(wording, mode)
            if said is not None:
                mark = keep(_marked(said, observation))
                rows.append([text(wording.text), keep(_MODE_NAMES[mode]), _said(said), mark])
    heads = ["asked as", "", "answer", ""]
    first = 0 if several else 1
    return table(heads[first:], [row[first:] for row in rows], raw=True, stacked=True)


def _said(said: Said) -> str:
    return f'<span class="soft">{text(said.failure)}</span>' if said.failure else f"<bdi>{text(said.text)}</bdi>"


def _marked(said: Said, observation: Observation) -> str:
    if said.failure:
        return "failed"
    if said.abstained:
        return "abstained"
    if not observation.question.answers:
        return ""
    return "right" if is_right(said.text, observation.question) else "wrong"


def _passage(seen: Seen, observation: Observation) -> str:
    place = f"{_short(seen.document)}{f', page {seen.page}' if seen.page else ''}, characters {seen.start}–{seen.start + len(seen.text)}"
    notes = _roles(seen, observation)
    cited = [(start, end) for w in observation.asked for passage, start, end in w.cited if passage == seen.id]
    return (
        f'<div class="passage"><span class="soft">{text(place)} · {notes}</span>'
        f'<pre dir="auto">{highlighted(seen.text, seen.gold, cited)}</pre></div>'
    )


def _short(document: str) -> str:
    """The end of its path, which tells documents apart on a page; the observations hold all of it."""
    parts = document.split("/")
    return document if len(parts) <= PATH_PARTS else "…/" + "/".join(parts[-PATH_PARTS:])


def _roles(seen: Seen, observation: Observation) -> str:
    """What became of the passage, in each wording of the question: they are counted from 1, where there are several."""
    several = len(observation.asked) > 1
    ranks = [
        f"at rank {wording.found.index(seen.id) + 1}{f' (wording {number})' if several else ''}"
        for number, wording in enumerate(observation.asked, 1)
        if seen.id in wording.found
    ]
    parts = [f"given to the reader {', '.join(ranks)}" if ranks else "not given to the reader"]
    if seen.gold:
        parts.append("holds the answer" if seen.id in observation.holding else "holds an answer")
    return ", ".join(parts)


def highlighted(content: str, gold: Iterable[tuple[int, int]], cited: Iterable[tuple[int, int]]) -> str:
    """The text as HTML, with the spans of both kinds marked. Spans may overlap, and reach beyond the text."""
    kinds = {"gold": list(gold), "cited": list(cited)}
    cuts = {0, len(content)}
    cuts.update(min(max(0, cut), len(content)) for spans in kinds.values() for span in spans for cut in span)
    places, parts = sorted(cuts), []
    for start, end in pairwise(places):
        marks = [kind for kind, spans in kinds.items() if any(a <= start and end <= b for a, b in spans)]
        piece = text(content[start:end])
        parts.append(f'<mark class="{" ".join(marks)}">{piece}</mark>' if marks else piece)
    return "".join(parts)


def table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], *, raw: bool = False, numbers: int = 0, stacked: bool = False
) -> str:
    """`raw`: the cells are HTML already. The last `numbers` columns are numbers. `stacked`: cells below each other on a phone."""
    first = len(heads) - numbers

    def cell(tag: str, column: int, value: str) -> str:
        style = ' class="n"' if column >= first else ""
        return f"<{tag}{style}>{value}</{tag}>"

    head = "".join(cell("th", i, text(h)) for i, h in enumerate(heads)) if any(heads) else ""
    body = "".join(
        f"<tr>{''.join(cell('td', i, value if raw else text(value)) for i, value in enumerate(row))}</tr>"
        for row in rows
    )
    opened = '<table class="stacked">' if stacked else "<table>"
    return f'<div class="scroll">{opened}{f"<tr>{head}</tr>" if head else ""}{body}</table></div>'


def keep(words: str) -> str:
    """On one line."""
    return f'<span class="keep">{words}</span>'


def text(value: object) -> str:
    """Escaped for HTML."""
    return html.escape(visible(value))


def visible(value: object) -> str:
    """With a space for each character that is not to be seen."""
    return "".join(c if c.isprintable() or c in "\n\t" or c in _JOINERS else " " for c in str(value))
