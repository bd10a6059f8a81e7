"""Questions and documents from a folder as BEIR has them: queries, which documents answer them, and the documents.

<folder>/queries.jsonl      {"_id": "q1", "text": "Who opened the bridge?", "answers": ["Lila Ortega"]}
         qrels/<split>.tsv  query-id, corpus-id and score in each line, under a line of heads (or qrels_<split>.tsv)
         corpus.jsonl       {"_id": "d1", "title": "The bridge", "text": "..."}

Files may be compressed with gzip. BEIR itself has no answers: they are taken from `answers`, of the query or in its
`metadata`. Verdicts need them, so a query without any is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from openbook.diagnosis.gold_quotes import sentence_at
from openbook.diagnosis.questions import Gold, Question, asked, decoded, lines_in, opened, parsed, shown, text_of, texts
from openbook.diagnosis.verdicts import holds_any
from openbook.errors import ConfigError
from openbook.files import storage_errors
from openbook.knowledge.sentences import sentence_spans
from openbook.records import sha256_hex

PREFERRED_SPLITS = ("test", "dev", "validation", "train")
_SCORE = re.compile(r"[+-]?\d+(?:\.\d+)?", re.ASCII)


def is_beir(path: Path) -> bool:
    return path.is_dir() and _file(path, "queries.jsonl") is not None


def beir_questions(folder: Path, split: str = "") -> Iterator[tuple[str, Question]]:
    """(where it stands, the question) for each query with accepted answers that the split judges, in the queries' order.

    `split`: default the first there is of `PREFERRED_SPLITS`. The gold is the sentence with an accepted answer in a document
    that is judged relevant, if there is one. Raises ConfigError, StorageError.
    """
    qrels = _qrels(folder, split)
    judged = _judged(qrels)
    texts_of = _texts(folder, {document for documents in judged.values() for document in documents})
    queries = answered = 0
    for where, value in _lines(folder, "queries.jsonl"):
        try:
            key = text_of(value["_id"])
            if key not in judged:
                continue
            queries += 1
            wording, answers = asked(value["text"]), _answers(value)
            if answers:
                answered += 1
                yield where, Question(key, wording, answers, gold=_gold(judged[key], texts_of, answers))
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{where} is no BEIR query: {error!r}.") from error
    if not queries:
        raise ConfigError(
            f"{qrels.name} judges no document relevant for a query in {folder.name}: its first column must hold ids of "
            "queries, and a score be above 0."
        )
    if not answered:
        raise ConfigError(
            f"None of the {queries} queries in {folder.name} has accepted answers, and verdicts need them. "
            'Give each query "answers": ["..."].'
        )


def write_corpus(folder: Path, out: Path) -> int:
    """Write each document as Markdown into `out`. How many. Raises ConfigError, StorageError."""
    count = 0
    with storage_errors(f"write {out}"):
        out.mkdir(parents=True, exist_ok=True)
        for where, value in _lines(folder, "corpus.jsonl"):
            key, title, text = _document(value, where)
            heading = f"# {title}\n\n" if title else ""
            (out / document_name(key)).write_text(f"{heading}{text}\n", encoding="utf-8", errors="replace")
            count += 1
    return count


def document_name(key: str) -> str:
    """A file name for a document's id: the id itself where it can be one, otherwise nobody else's."""
    plain = re.sub(r"[^\w-]", "_", key)[:80]
    return f"{plain}.md" if plain == key else f"{plain}-{sha256_hex(key.encode())[:8]}.md"


def _answers(value: Mapping[str, Any]) -> tuple[str, ...]:
    metadata = value.get("metadata")
    inner = metadata.get("answers") if isinstance(metadata, Mapping) else None
    return texts(value.get("answers", inner), "answers")


def _gold(relevant: Mapping[str, float], texts_of: Mapping[str, str], answers: tuple[str, ...]) -> Gold | None:
    for document in sorted(relevant, key=lambda key: -relevant[key]):
        text = texts_of.get(document, "")
        for start, end in sentence_spans(text, 0, len(text)):
            if holds_any(text[start:end], answers):
                return Gold(document_name(document), quote=sentence_at(text, start, end - start))
    return None


def _judged(path: Path) -> dict[str, dict[str, float]]:
    """Of each query the relevant documents with their scores, those above 0."""
    found: dict[str, dict[str, float]] = {}
    with opened(path) as stream:
        for number, line in enumerate(stream, 1):
            where = f"{path.name} line {number}"
            cells = _cells(decoded(line, where, first=number == 1))
            if not cells or (number == 1 and cells[-1][:1].isalpha()):
                continue
            if len(cells) not in (3, 4) or not _SCORE.fullmatch(cells[-1]):
                raise ConfigError(
                    f"{where} is no judgement: a query's id, a document's id and a score such as 1 are expected, "
                    f"not {shown(cells)}."
                )
            if (score := float(cells[-1])) > 0:  # as TREC has them, a column stands between query and document
                found.setdefault(cells[0], {})[cells[-2]] = score
    return found


def _cells(line: str) -> list[str]:
    """Between tabs, where ids may hold spaces, or between spaces."""
    tabbed = [cell.strip() for cell in line.strip().split("\t")]
    return tabbed if len(tabbed) > 2 else line.split()


def _texts(folder: Path, keys: set[str]) -> dict[str, str]:
    found = {}
    for where, value in _lines(folder, "corpus.jsonl"):
        key, _, text = _document(value, where)
        if key in keys:
            found[key] = text
    return found


def _document(value: Mapping[str, Any], where: str) -> tuple[str, str, str]:
    try:
        title = text_of(value.get("title") or "", empty=True)
        return text_of(value["_id"]), " ".join(title.split()), text_of(value["text"], empty=True)
    except (ValueError, KeyError) as error:
        raise ConfigError(f"{where} is no BEIR document: {error!r}.") from error


def _qrels(folder: Path, split: str) -> Path:
    patterns = ("qrels/*.tsv", "qrels_*.tsv", "qrels/*.tsv.gz", "qrels_*.tsv.gz")
    splits: dict[str, Path] = {}
    for path in (path for pattern in patterns for path in sorted(folder.glob(pattern))):
        splits.setdefault(path.name.removesuffix(".gz").removesuffix(".tsv").removeprefix("qrels_"), path)
    wanted = [split] if split else [*PREFERRED_SPLITS, *splits]
    for name in wanted:
        if name in splits:
            return splits[name]
    there = f"There are {', '.join(splits)}." if splits else "There are none."
    raise ConfigError(f"{folder} has no judgements {f'of the split {split!r}' if split else '(qrels/*.tsv)'}. {there}")


def _lines(folder: Path, name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    path = _file(folder, name)
    if path is None:
        raise ConfigError(f"{folder} has no {name}.")
    for number, text in lines_in(path):
        where = f"{path.name} line {number}"
        value = parsed(text, where)
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where} is no JSON object.")
        yield where, value


def _file(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)
