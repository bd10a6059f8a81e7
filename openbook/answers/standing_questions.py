"""Standing questions: saved, asked again at each new version of their knowledge base, with the changes of their answers.

    <home>/questions/<knowledge base>.json        the questions of all owners, which are users' data
    <home>/derived/questions/<knowledge base>/    one file per question: its answer and changes

Answers hold text of documents, so they lie where a purge deletes, with the recorded changes. A check that began before a purge keeps nothing. An
owner is a key's id, or one name for all callers without a key. If nothing that decides an answer has changed, the
model is not asked.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
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
    """`labels`: held when it was saved at the command line. For a key's question they are those that the key has now."""

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
    of each window that was found for it. `changes`: newest first.
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
                    replace_file(self.path, canonical_json(dataclasses.asdict(after)) + b"\n", mode=0o600)

    # Checks

    def stamp(self, base: KnowledgeBase) -> object:
        """While this is equal, a check finds nothing to do. None: there are no questions."""
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return None
        return status.st_mtime_ns, status.st_ino, base.version, self.derived.purge_mark()

    @contextmanager
    def checking(self, owner: str) -> Iterator[bool]:
        """Hold the right to ask this owner's questions. Yields False if another process has it."""
        lock = self.path.with_name(f".{self.path.stem}-{owner}.lock")
        with ExitStack() as stack:
            with storage_errors(f"ask the standing questions in {self.path}"):
                make_folder(lock.parent)
                held = stack.enter_context(exclusive_lock(lock, 0.0))
                saved = {each.id for each in self.questions()} if held else set()
                for path in self._answers.glob("*.json") if held else ():
                    if path.stem not in saved:  # kept while its question was removed
                        path.unlink(missing_ok=True)
            yield held

    def answer(self, question: StandingQuestion) -> StandingAnswer | None:
        """None if there is none, or its file is damaged: then the question is asked again."""
        try:
            return decode(self._path(question.id).read_bytes(), StandingAnswer, "It", ValueError)
        except (OSError, ValueError):
            return None

    def keep(self, question: StandingQuestion, answer: StandingAnswer, purge_mark: str) -> bool:
        """False, and nothing is kept, if there was a purge since `purge_mark`, which is older than all of the answer."""
        path = self._path(question.id)
        with storage_errors(f"write {path}"), self.derived.writing() as may_write:
            if not may_write or purge_mark != self.derived.purge_mark():
                return False
            replace_file(path, canonical_json(dataclasses.asdict(answer)), mode=0o600)
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

    return replace(answer, changes=tuple(filter(is_shown, answer.changes)))


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
                found = replace(found, state="changed", changes=(change, *found.changes)[:KEPT_CHANGES])
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
    read = (
        windows if isinstance(plan, OverviewPlan) else [digest for _, digest in windows]
    )  # an overview names documents
    who = [__version__, dataclasses.asdict(model.identity), model.engine.numeric_class, model.context_tokens]
    decided = [
        *who,
        dataclasses.asdict(options.decoding),
        plan.strategy,
        question,
        read,
    ]  # prompts are of this OpenBook
    return sha256_hex(canonical_json(decided)), windows


# --- for others -------------------------------------------------------------------------------------------------------


def described(question: StandingQuestion, answer: StandingAnswer | None, name: str) -> dict[str, Any]:
    """A question as JSON, with the digests of receipts. `name`: of the knowledge base."""
    given = answer and answer.given
    return {
        "object": "question",
        **_head(question, name),
        "created_at": question.created_at,
        "state": answer.state if answer else "new",
        "version": answer and answer.version,
        "asked_at": answer and answer.asked_at,
        "error": answer.error if answer else "",
        "answer": given.answer if given else "",
        "receipt": given and given.receipt.digest,
        "changes": [_change(each, whole=False) for each in (answer.changes if answer else ())],
    }


def event(question: StandingQuestion, change: Change, name: str) -> dict[str, Any]:
    """A change as JSON, with whole receipts. `name`: of the knowledge base."""
    return {"object": "question.changed", **_head(question, name), **_change(change, whole=True)}


def _head(question: StandingQuestion, name: str) -> dict[str, Any]:
    return {"id": question.id, "knowledge_base": name, "question": question.question, "where": question.where}


def _change(change: Change, *, whole: bool) -> dict[str, Any]:
    def side(given: VersionAnswer) -> dict[str, Any]:
        receipt = dataclasses.asdict(given.receipt) if whole else given.receipt.digest
        return {"answer": given.answer, "confidence": given.confidence, "receipt": receipt}

    return {
        "version_before": change.before.version,
        "version_after": change.after.version,
        "at": change.at,
        "before": side(change.before),
        "after": side(change.after),
        "documents": list(change.documents),
    }


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
