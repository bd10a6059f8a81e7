"""Standing questions: saved, asked again at each new version of their knowledge base, with the changes of their answers.

    <home>/questions/<knowledge base>.json        the questions of all owners, which are users' data
    <home>/derived/questions/<knowledge base>/    one file per question: its answer and changes

Answers hold text of documents, so they lie where a purge deletes, with the recorded changes. A check that began before a purge keeps nothing. An
owner is a key's id, or one name for all callers without a key. If nothing that decides an answer has changed, the
model is not asked. `openbook questions watch` asks all owners' questions and tells their changes; a server asks a caller's questions on
request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from openbook import __version__
from openbook.answers.ask import ask_with_fallback
from openbook.answers.prompts import checked_question
from openbook.answers.reading import OverviewPlan
from openbook.answers.retrieval import Corpus, Options, retrieve
from openbook.core.codec import decode
from openbook.core.config import Settings
from openbook.core.derived import QUESTIONS, DerivedFolder
from openbook.core.errors import ModelError, OpenBookError, QuestionError, StorageError, UnknownVersion
from openbook.core.files import make_folder, replace_file, storage_errors
from openbook.core.locks import exclusive_lock
from openbook.core.parallel import Cancelled, Listener, never
from openbook.core.records import Confidence, Digest, Receipt, canonical_json, sha256_hex
from openbook.inference import FrozenModel
from openbook.knowledge import KnowledgeBase, Scope
from openbook.knowledge.documents import may_see, sees
from openbook.knowledge.index.filter_parser import parse_filter
from openbook.knowledge.store.version_rows import now

FORMAT: Literal[1] = 1  # of both files
FOLDER = "questions"  # in the home
MOST = 200  # of one owner in one knowledge base
KEPT_CHANGES = 20  # of one question
POST_S = 10.0  # for a webhook to answer

State: TypeAlias = Literal["new", "same", "changed", "failed"]


@dataclass(frozen=True, slots=True)
class StandingQuestion:
    """`labels`: those that it is asked with; a key's question is asked with the labels that the key has then."""

    id: str
    owner: str
    question: str
    where: str
    labels: tuple[str, ...]
    created_at: str


@dataclass(frozen=True, slots=True)
class VersionAnswer:
    """An answer as the model gave it. `version`: the last one at which it was the answer; the receipt's may be older."""

    version: int
    answer: str
    confidence: Confidence
    receipt: Receipt

    def __post_init__(self) -> None:
        if sha256_hex(self.answer.encode()) != self.receipt.answer_digest:
            raise ValueError("it was altered")


@dataclass(frozen=True, slots=True)
class Change:
    """`documents`: those whose windows came, went or changed. None if another model or order made the difference."""

    at: str
    before: VersionAnswer
    after: VersionAnswer
    documents: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StandingAnswer:
    """The outcome of the last check, at `version`, for an owner with `labels`.

    `given`: None if no check succeeded. `inputs`: a digest of all that decides `given`. `windows`: (document, digest)
    of each window that was found for it. `changes`: newest first; the first `untold` are not told yet.
    """

    format: Literal[1]
    labels: tuple[str, ...]
    version: int
    asked_at: str
    state: State
    error: str = ""
    inputs: Digest = ""
    windows: tuple[tuple[str, Digest], ...] = ()
    given: VersionAnswer | None = None
    changes: tuple[Change, ...] = ()
    untold: int = 0


@dataclass(frozen=True, slots=True)
class AnswerOfVersion:
    """`receipt`: its digest."""

    answer: str
    confidence: Confidence
    receipt: str


@dataclass(frozen=True, slots=True)
class AnswerChange:
    """`version_before`: the last one with the old answer. `documents`: those whose windows made the difference."""

    version_before: int
    version_after: int
    at: str
    before: AnswerOfVersion
    after: AnswerOfVersion
    documents: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SavedQuestion:
    """A question as callers see it. `state`: of the last check, at `version`; "new": not asked yet. `changes`: newest first."""

    id: str
    knowledge_base: str
    question: str
    where: str
    created_at: str
    state: State
    version: int | None
    asked_at: str | None
    error: str
    answer: str
    receipt: str | None
    changes: tuple[AnswerChange, ...]
    object: Literal["question"] = "question"


@dataclass(frozen=True, slots=True)
class _File:
    format: Literal[1]
    questions: tuple[StandingQuestion, ...]


class QuestionStore:
    """The standing questions about one knowledge base, and their answers. Raises StorageError."""

    def __init__(self, settings: Settings, base_id: str) -> None:
        if not base_id.isalnum():
            raise StorageError(f"The knowledge base's id {base_id!r} cannot name a file, so it takes no questions.")
        self.path = settings.home / FOLDER / f"{base_id}.json"
        self.derived = DerivedFolder(settings.derived_dir)
        self._answers = settings.derived_dir / QUESTIONS / base_id

    # Questions

    def questions(self, owner: str | None = None) -> tuple[StandingQuestion, ...]:
        """In the order in which they were saved. None: of all owners."""
        with storage_errors(f"read the standing questions in {self.path}"):
            try:
                data = self.path.read_bytes()
            except FileNotFoundError:
                return ()
        try:
            found = decode(data, _File, "The file", ValueError).questions
        except ValueError as error:
            raise StorageError(
                f"{self.path} is not a valid file of standing questions ({error}). Restore it from a backup, or use the OpenBook "
                "that wrote it; or move it away and save the questions again: openbook questions add QUESTION"
            ) from error
        return tuple(each for each in found if owner in (None, each.owner))

    def add(self, owner: str, question: str, where: str = "", labels: Sequence[str] = ()) -> StandingQuestion:
        """Save a question, unless it is saved already. Raises QuestionError."""
        question, where, held = checked_question(question), where.strip(), tuple(sorted(set(labels)))
        if where:
            parse_filter(where)
        made_of = [self.path.name, owner, question, where, held]
        made = StandingQuestion(sha256_hex(canonical_json(made_of))[:12], owner, question, where, held, now())
        with self._edit() as questions:
            if sum(each.owner == owner for each in questions.values()) >= MOST and made.id not in questions:
                raise QuestionError(f"There are {MOST} standing questions, and no more are allowed. Remove one first.")
            return questions.setdefault(made.id, made)

    def remove(self, owner: str, question_id: str) -> bool:
        """False if this owner has no such question."""
        with self._edit() as questions:
            if question_id not in questions or questions[question_id].owner != owner:
                return False
            del questions[question_id]
        with storage_errors(f"delete an answer in {self._answers}"):
            self._path(question_id).unlink(missing_ok=True)
        return True

    @contextmanager
    def _edit(self) -> Iterator[dict[str, StandingQuestion]]:
        """Questions by id, under a lock; written if the block succeeds and changed them."""
        with storage_errors(f"write the standing questions in {self.path}"):
            make_folder(self.path.parent)
            with exclusive_lock(self.path.with_name(".lock"), 30.0) as held:
                if not held:
                    raise StorageError(f"Another process is changing {self.path}. Wait for it, then try again.")
                before = self.questions()
                questions = {each.id: each for each in before}
                yield questions
                after = _File(FORMAT, tuple(questions.values()))
                if after.questions != before:
                    replace_file(self.path, canonical_json(asdict(after)) + b"\n", mode=0o600)

    # Checks

    def stamp(self, base: KnowledgeBase) -> object:
        """While this is equal, a check finds nothing to do."""
        return self.questions(), base.version, self.derived.purge_mark()

    @contextmanager
    def checking(self, owner: str, timeout_s: float = 0.0) -> Iterator[bool]:
        """Hold the right to ask this owner's questions. Yields False if another check still had it at the timeout."""
        lock = self.path.with_name(f".{self.path.stem}-{owner}.lock")
        with storage_errors(f"ask the standing questions in {self.path}"):
            make_folder(lock.parent)
            with exclusive_lock(lock, timeout_s) as held:
                saved = {each.id for each in self.questions()} if held else set()
                for path in self._answers.glob("*.json") if held else ():
                    if path.stem not in saved:  # kept while its question was removed
                        path.unlink(missing_ok=True)
                yield held

    def due(self, owner: str) -> Iterator[StandingQuestion]:
        """An owner's questions, also those that are saved meanwhile: another check leaves them to this one."""
        given: set[str] = set()
        while new := [each for each in self.questions(owner) if each.id not in given]:
            given.update(each.id for each in new)
            yield from new

    def answer(self, question: StandingQuestion) -> StandingAnswer | None:
        """None if there is none, or its file is damaged: then the question is asked again."""
        try:
            return decode(self._path(question.id).read_bytes(), StandingAnswer, "It", ValueError)
        except (OSError, ValueError):
            return None

    def take_untold(self, question: StandingQuestion) -> tuple[Change, ...]:
        """The changes that were not told yet, oldest first; they count as told from now on. Only within `checking`."""
        mark, answer = self.derived.purge_mark(), self.answer(question)
        if answer is None or not answer.untold or not self.keep(question, replace(answer, untold=0), mark):
            return ()
        return answer.changes[: answer.untold][::-1]

    def keep(self, question: StandingQuestion, answer: StandingAnswer, purge_mark: str) -> bool:
        """False, and nothing is kept, if there was a purge since `purge_mark`, which is older than all of the answer."""
        path = self._path(question.id)
        with storage_errors(f"write {path}"), self.derived.writing() as may_write:
            if not may_write or purge_mark != self.derived.purge_mark():
                return False
            replace_file(path, canonical_json(asdict(answer)), mode=0o600)
        return True

    def _path(self, question_id: str) -> Path:
        return self._answers / f"{question_id}.json"


def recorded_changes(settings: Settings) -> int:
    """How many changes of answers are recorded, for all owners and knowledge bases. A purge deletes them."""
    found = 0
    for path in (settings.derived_dir / QUESTIONS).glob("*/*.json"):
        with suppress(OSError, ValueError):  # gone meanwhile, or damaged
            found += len(decode(path.read_bytes(), StandingAnswer, "It", ValueError).changes)
    return found


def visible(answer: StandingAnswer | None, labels: frozenset[str], base: KnowledgeBase) -> StandingAnswer | None:
    """The part of the answer that an owner with these labels may see now; None if it was made for other labels."""
    if answer is None or answer.labels != tuple(sorted(labels)):
        return None
    if base.shows_all_to(labels):
        return answer
    if answer.given is not None and not may_see(base, answer.given.receipt, labels):
        return None

    def is_shown(change: Change) -> bool:
        sides = (change.before, change.after)
        return all(may_see(base, side.receipt, labels) for side in sides) and all(
            any(sees(base, [document], side.version, labels) for side in sides) for document in change.documents
        )

    untold = len(list(filter(is_shown, answer.changes[: answer.untold])))
    return replace(answer, changes=tuple(filter(is_shown, answer.changes)), untold=untold)


def ask_again(
    store: QuestionStore,
    question: StandingQuestion,
    labels: frozenset[str],
    corpus: Corpus,
    model: FrozenModel,
    options: Options,
    *,
    fallback: Callable[[], FrozenModel] | None = None,
    cancelled: Cancelled = never,
    explain: Callable[[OpenBookError], str] = str,
) -> StandingAnswer | None:
    """Ask at the newest version, unless that was done. Keeps and returns the outcome.

    None: there was nothing to do, or it was cancelled, or a purge came. `explain`: the sentence for an error that this
    question has. Raises StorageError, KnowledgeBaseInvalid, ClusterError.
    """
    base, mark = corpus.base, store.derived.purge_mark()
    last, version = visible(store.answer(question), labels, base), base.version
    if last is not None and last.version == version:
        return None
    found = last or StandingAnswer(FORMAT, tuple(sorted(labels)), version, "", "new")
    found = replace(found, version=version, asked_at=now(), state="same", error="")
    corpus = replace(corpus, scope=Scope(version, question.where, labels))
    try:
        inputs, windows = _decided_by(question.question, model, corpus, options)
        if fallback is not None:
            more, others = _decided_by(question.question, fallback(), corpus, replace(options, strategy="auto"))
            inputs, windows = sha256_hex(canonical_json([inputs, more])), (*windows, *others)
        if found.given is not None and found.inputs == inputs:
            found = replace(found, given=replace(found.given, version=version))
        else:
            listener = Listener(cancelled=cancelled)
            answer = ask_with_fallback(question.question, model, fallback, corpus, options, listener)
            if answer.finish_reason == "cancelled":
                return None
            before, after = found.given, VersionAnswer(version, answer.answer, answer.confidence, answer.receipt)
            if before is not None and before.receipt.answer_digest != after.receipt.answer_digest:
                documents = {document for document, _ in {*found.windows} ^ {*windows}}
                change = Change(found.asked_at, before, after, tuple(sorted(documents)))
                changes = (change, *found.changes)[:KEPT_CHANGES]
                found = replace(found, state="changed", changes=changes, untold=min(found.untold + 1, KEPT_CHANGES))
            found = replace(found, inputs=inputs, windows=windows, given=after)
    except (ModelError, QuestionError, UnknownVersion) as error:
        found = replace(found, state="failed", error=explain(error))
    return found if store.keep(question, found, mark) else None


def _decided_by(
    question: str, model: FrozenModel, corpus: Corpus, options: Options
) -> tuple[Digest, tuple[tuple[str, Digest], ...]]:
    """Return (a digest of all that decides the model's text; document and digest of each window that was found)."""
    plan = retrieve(question, model, corpus, options).plan
    shown = [(each.passage, [each.passage.heading_path, each.passage.header, each.passage.text]) for each in plan.hits]
    windows = tuple((passage.document, sha256_hex(canonical_json(parts))) for passage, parts in shown)
    read = windows if isinstance(plan, OverviewPlan) else [digest for _, digest in windows]  # it names documents
    who = [__version__, asdict(model.identity), model.engine.numeric_class, model.context_tokens]
    decided = [*who, asdict(options.decoding), plan.strategy, question, read]  # prompts are of this OpenBook
    return sha256_hex(canonical_json(decided)), windows


# --- for others -------------------------------------------------------------------------------------------------------


def described(question: StandingQuestion, answer: StandingAnswer | None, name: str) -> SavedQuestion:
    """`name`: of the knowledge base."""
    found = answer or StandingAnswer(FORMAT, (), 0, "", "new")
    return SavedQuestion(
        question.id,
        name,
        question.question,
        question.where,
        question.created_at,
        found.state,
        answer.version if answer else None,
        answer.asked_at if answer else None,
        found.error,
        found.given.answer if found.given else "",
        found.given.receipt.digest if found.given else None,
        tuple(map(_told, found.changes)),
    )


def _told(change: Change) -> AnswerChange:
    before, after = (
        AnswerOfVersion(side.answer, side.confidence, side.receipt.digest) for side in (change.before, change.after)
    )
    return AnswerChange(change.before.version, change.after.version, change.at, before, after, change.documents)


def event(question: StandingQuestion, change: Change, name: str) -> dict[str, Any]:
    """A change as JSON, with whole receipts. `name`: of the knowledge base."""
    told = asdict(_told(change))
    for side in ("before", "after"):
        told[side]["receipt"] = asdict(getattr(change, side).receipt)
    head = {"id": question.id, "knowledge_base": name, "question": question.question, "where": question.where}
    return {"object": "question.changed", **head, **told}


def post(url: str, value: dict[str, Any]) -> str:
    """Post `value` as JSON, at most twice. Returns why it was not taken, without the address; empty if it was."""
    import httpx

    async def status() -> int:
        # A limit for all of it: the client's own begins again with every byte. The body is not read.
        async with (
            asyncio.timeout(POST_S),
            httpx.AsyncClient(timeout=POST_S) as client,
            client.stream("POST", url, json=value) as response,  # redirects are not followed
        ):
            return response.status_code

    why = ""
    for _ in range(2):
        try:
            if 200 <= (answered := asyncio.run(status())) < 300:
                return ""
            why = f"it answered {answered}"
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            why = type(error).__name__
    return f"The webhook did not take the change: {why}."
