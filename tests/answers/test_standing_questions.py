"""Standing questions: asked again after a new version, computed again only if what decides the answer changed."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from openbook.answers import standing_questions
from openbook.answers.prompts import ABSTENTION
from openbook.answers.retrieval import Corpus, Options
from openbook.answers.standing_questions import (
    KEPT_CHANGES,
    AnswerOfVersion,
    QuestionStore,
    StandingAnswer,
    StandingQuestion,
    ask_again,
    described,
    event,
    post,
    visible,
)
from openbook.core.config import Settings
from openbook.core.derived import DerivedFolder
from openbook.core.errors import EngineError, QuestionError, StorageError
from openbook.core.parallel import Cancelled, never
from openbook.core.records import Completion, Decoding, ModelIdentity, Prompt, canonical_json
from openbook.inference import FrozenModel
from openbook.knowledge import KnowledgeBase, RunOptions, add, remove
from openbook.knowledge.byte_search import TELLING, Needles
from openbook.proofs.purge import purge_everywhere
from openbook.proofs.receipts import parse_receipt
from openbook.proofs.replay import replay
from openbook.testing import EchoEngine, HashEmbedder
from tests.conftest import ROOT, DecliningEngine, base_with, named_model

ANY = Options(min_similarity=-1.0)  # hashed words are no measure
NIGHT = "Who signs night shift requests?"
SIGNS = "Night shift requests are signed by the head of unit."
NEW = "Night shift requests are signed by the director zeppelin-7341."
OTHER = "The bridge is 40 metres long."


class CountingEngine(EchoEngine):
    """Counts its answers; calls `before` each; fails with `fails`."""

    def __init__(self) -> None:
        super().__init__()
        self.answers, self.fails = 0, ""
        self.before: Callable[[], object] = lambda: None

    def generate(
        self, prompt: Prompt, decoding: Decoding, cancelled: Cancelled = never
    ) -> Generator[str, None, Completion]:
        self.answers += 1
        self.before()
        if self.fails:
            raise EngineError(self.fails)
        return super().generate(prompt, decoding, cancelled)


@dataclass
class Desk:
    folder: Path
    base: KnowledgeBase
    settings: Settings
    engine: CountingEngine
    store: QuestionStore

    def write(self, name: str, text: str, *labels: str) -> None:
        (self.folder / name).write_text(text)
        add(self.base, [self.folder / name], HashEmbedder(), RunOptions(labels=frozenset(labels)))

    def check(self) -> list[StandingAnswer]:
        """Those of `me` that were due."""
        questions = self.store.questions("me")
        return [answer for each in questions if (answer := self.ask(each)) is not None]

    def ask(self, question: StandingQuestion, *labels: str) -> StandingAnswer | None:
        corpus, model = Corpus(self.base, HashEmbedder()), FrozenModel(self.engine)
        return ask_again(self.store, question, frozenset(labels), corpus, model, ANY)

    def asked(self, question: StandingQuestion, *labels: str) -> StandingAnswer:
        """What `ask` makes of a question that is due."""
        found = self.ask(question, *labels)
        assert found is not None
        return found


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    settings = Settings(tmp_path / "home")
    base = base_with(tmp_path / "docs", {"night.txt": SIGNS, "bridge.txt": OTHER}, place=settings.home / "kb")
    yield Desk(tmp_path / "docs", base, settings, CountingEngine(), QuestionStore(settings, base.id))
    base.close()


def text_of(answer: StandingAnswer | None) -> str:
    assert answer is not None
    assert answer.given is not None
    return answer.given.answer


# --- checks -----------------------------------------------------------------------------------------------------------


def test_a_change_has_both_answers_and_the_documents_that_made_it(desk: Desk) -> None:
    question = desk.store.add("me", NIGHT)
    (first,) = desk.check()
    assert (first.state, text_of(first), first.version) == ("same", SIGNS, 1)
    assert desk.check() == []  # nothing is due
    desk.write("bridge.txt", f"{OTHER} It has four lanes.")
    desk.write("night.txt", NEW)
    (second,) = desk.check()
    (change,) = second.changes
    assert (second.state, second.version, text_of(second)) == ("changed", 3, NEW)
    assert (change.before.answer, change.before.version) == (SIGNS, 1)
    assert (change.after.answer, change.after.version) == (NEW, 3)
    assert str(desk.folder / "night.txt") in change.documents
    for side in (change.before, change.after):
        assert replay(side.receipt, FrozenModel(desk.engine), desk.base).identical
    assert parse_receipt(canonical_json(event(question, change, "kb")["after"])) == change.after.receipt
    (told,) = described(question, second, "kb").changes
    assert told.after == AnswerOfVersion(NEW, change.after.confidence, change.after.receipt.digest)


@pytest.mark.parametrize("versions", [20, pytest.param(1000, marks=pytest.mark.slow)])
def test_new_versions_that_touch_no_window_compute_no_answer(desk: Desk, versions: int) -> None:
    for i in range(5):
        desk.write(f"night-{i}.txt", f"Night shift requests of ward {i} are signed by nurse {i}.")
    desk.store.add("me", NIGHT)
    desk.check()
    before = desk.engine.answers
    for number in range(versions):
        desk.write("other.txt", f"Parcel {number} weighs {number} kilograms.")
        (answer,) = desk.check()
        assert (answer.state, answer.version) == ("same", desk.base.version)
    assert desk.engine.answers == before == 1


def test_another_window_or_model_with_the_same_answer_is_no_change(desk: Desk) -> None:
    desk.store.add("me", NIGHT)
    desk.check()
    desk.write("night.txt", f"{SIGNS} They are kept for a year.")
    (answer,) = desk.check()
    assert (answer.state, answer.changes, desk.engine.answers) == ("same", (), 2)
    assert answer.given is not None
    assert answer.given.receipt.knowledge_base_version == 2  # the receipt of the windows that there are now
    desk.engine.identity = ModelIdentity("other", "1" * 64, "verified")
    desk.write("other.txt", "Parcels weigh 4 kilograms.")
    desk.check()
    assert desk.engine.answers == 3


def test_a_fallback_model_decides_the_answer_too(desk: Desk) -> None:
    for i in range(5):
        desk.write(f"night-{i}.txt", f"Night shift requests of ward {i} are signed by nurse {i}.")
    question, large = desk.store.add("me", NIGHT), FrozenModel(desk.engine)
    small, corpus = named_model("small", DecliningEngine()), Corpus(desk.base, HashEmbedder())
    check = partial(ask_again, desk.store, question, frozenset(), corpus, small, ANY)
    assert text_of(check()) == ABSTENTION
    for parcel, identity, answers in ((1, large.identity, 1), (2, large.identity, 1), (3, small.identity, 2)):
        desk.engine.identity = identity
        desk.write("other.txt", f"Parcel {parcel} weighs {parcel} kilograms.")
        answer = check(fallback=lambda: large)
        assert (text_of(answer), desk.engine.answers) == (SIGNS, answers)


def test_only_the_last_changes_are_kept_and_each_is_told_once(desk: Desk) -> None:
    question = desk.store.add("me", NIGHT)
    for number in range(KEPT_CHANGES + 3):
        desk.write("night.txt", f"Night shift requests are signed by head number {number}.")
        desk.check()
    changes = desk.store.take_untold(question)
    assert (len(changes), desk.store.take_untold(question)) == (KEPT_CHANGES, ())
    assert changes[-1].after.answer.endswith(f"{KEPT_CHANGES + 2}.")
    assert [each.before for each in changes[1:]] == [each.after for each in changes[:-1]]
    desk.write("night.txt", NEW)
    desk.check()
    assert [each.after.answer for each in desk.store.take_untold(question)] == [NEW]


def test_a_failed_question_keeps_its_answer_and_is_asked_again_at_the_next_version(desk: Desk) -> None:
    desk.store.add("me", NIGHT)
    desk.check()
    desk.engine.fails = "The engine is out of order."
    desk.write("night.txt", NEW)
    (failed,) = desk.check()
    assert (failed.state, failed.error, text_of(failed)) == ("failed", desk.engine.fails, SIGNS)
    assert desk.check() == []
    desk.engine.fails = ""
    desk.write("other.txt", "Parcels weigh 4 kilograms.")
    (answer,) = desk.check()
    assert (answer.state, answer.error, text_of(answer)) == ("changed", "", NEW)
    assert (answer.changes[0].before.version, answer.changes[0].after.version) == (1, 3)


def test_answers_before_a_kill_are_kept_and_a_failed_question_does_not_stop_the_others(desk: Desk) -> None:
    class Killed(BaseException):
        """What ends a process, as far as the code can tell."""

    desk.store.add("me", "x " * 3990)
    first, second = desk.store.add("me", NIGHT), desk.store.add("me", "How long is the bridge?")

    def killed() -> None:
        if desk.engine.answers == 2:
            raise Killed

    desk.engine.before = killed
    with pytest.raises(Killed):
        desk.check()
    assert (text_of(desk.store.answer(first)), desk.store.answer(second)) == (SIGNS, None)
    (answer,) = desk.check()
    assert text_of(answer) == OTHER
    failed, *_ = map(desk.store.answer, desk.store.questions("me"))
    assert failed is not None
    assert (failed.state, bool(failed.error), failed.given) == ("failed", True, None)


KILLED = """
import os, sys
from pathlib import Path
from openbook.answers import standing_questions
from openbook.core.config import Settings
from openbook.inference import FrozenModel
from openbook.knowledge import KnowledgeBase
from openbook.answers.retrieval import Corpus, Options
from openbook.testing import HashEmbedder, echo_model
home = Path(sys.argv[1])
base = KnowledgeBase.open(home / "kb")
store = standing_questions.QuestionStore(Settings(home), base.id)
corpus = Corpus(base, HashEmbedder())
for number, question in enumerate(store.questions("me")):
    standing_questions.ask_again(store, question, frozenset(), corpus, echo_model(), Options())
    if number == 1:
        os.kill(os.getpid(), 9)
"""


@pytest.mark.laws
@pytest.mark.skipif(os.name != "posix", reason="kill -9")
def test_a_killed_process_leaves_whole_files_and_no_lock(desk: Desk) -> None:
    questions = [desk.store.add("me", f"{NIGHT} {number}") for number in range(4)]
    done = subprocess.run([sys.executable, "-c", KILLED, desk.settings.home], cwd=ROOT, check=False)
    assert done.returncode == -9
    assert [desk.store.answer(each) is None for each in questions] == [False, False, True, True]
    assert len(desk.check()) == 2
    with desk.store.checking("me") as held:
        assert held


def test_one_check_asks_an_owners_questions_also_those_saved_meanwhile(desk: Desk) -> None:
    with desk.store.checking("me") as first, desk.store.checking("me") as second, desk.store.checking("you") as other:
        assert (first, second, other) == (True, False, True)
        questions = [desk.store.add("me", NIGHT)]
        for due in desk.store.due("me"):
            if len(questions) < 3:
                questions.append(desk.store.add("me", f"{NIGHT} {len(questions)}"))
            assert due in questions
        assert list(desk.store.due("me")) == questions


def test_a_cancelled_answer_is_not_kept(desk: Desk) -> None:
    question, corpus = desk.store.add("me", NIGHT), Corpus(desk.base, HashEmbedder())
    model, stop = FrozenModel(desk.engine), lambda: True
    assert ask_again(desk.store, question, frozenset(), corpus, model, ANY, cancelled=stop) is None
    assert desk.store.answer(question) is None


# --- purge ------------------------------------------------------------------------------------------------------------


def is_clean(desk: Desk) -> bool:
    needles = Needles()
    needles.add(NEW.encode())
    files = (path for path in desk.settings.home.rglob("*") if path.is_file())
    return all(needles.find_in(path, TELLING)[0] is None for path in files)


def test_a_purge_deletes_answers_and_changes_and_the_proof_holds(desk: Desk) -> None:
    question = desk.store.add("me", NIGHT)
    desk.check()
    desk.write("night.txt", NEW)
    desk.check()
    assert not is_clean(desk)
    assert purge_everywhere(desk.base, [str(desk.folder / "night.txt")], desk.settings).proved
    assert is_clean(desk)
    assert desk.store.questions("me") == (question,)
    assert described(question, desk.store.answer(question), "kb").state == "new"
    (answer,) = desk.check()
    assert (answer.state, answer.changes) == ("same", ())
    assert is_clean(desk)


@pytest.mark.parametrize("answered_before", [False, True])
def test_an_answer_that_was_being_written_during_a_purge_is_not_kept(desk: Desk, answered_before: bool) -> None:
    question, proofs = desk.store.add("me", NIGHT), list[bool]()
    if answered_before:
        desk.check()
    desk.write("night.txt", NEW)

    def purge() -> None:
        desk.engine.before = lambda: None
        proofs.append(purge_everywhere(desk.base, [str(desk.folder / "night.txt")], desk.settings, copies=True).proved)

    desk.engine.before = purge
    assert (desk.check(), proofs, desk.store.answer(question), is_clean(desk)) == ([], [True], None, True)
    with DerivedFolder(desk.settings.derived_dir).purging(1.0):
        assert (desk.check(), desk.store.answer(question)) == ([], None)
    assert len(desk.check()) == 1


def test_a_question_that_holds_the_purged_text_is_reported(desk: Desk) -> None:
    desk.write("night.txt", NEW)
    desk.store.add("me", f"Is this right: {NEW}")
    done = purge_everywhere(desk.base, [str(desk.folder / "night.txt")], desk.settings)
    assert not done.proved
    assert ["openbook questions remove" in each.advice for each in done.out_of_reach] == [True]


# --- labels -----------------------------------------------------------------------------------------------------------


def test_an_answer_for_other_labels_is_neither_shown_nor_compared(desk: Desk) -> None:
    desk.write("night.txt", NEW, "hr")
    question = desk.store.add("key", NIGHT)
    kept = desk.asked(question, "hr")
    assert text_of(kept) == NEW
    assert (visible(kept, frozenset({"hr"}), desk.base), visible(kept, frozenset(), desk.base)) == (kept, None)
    without = desk.asked(question)
    assert ("zeppelin" in str(described(question, without, "kb")), without.changes, without.labels) == (False, (), ())


def test_a_label_on_a_document_hides_its_answers_and_changes(desk: Desk) -> None:
    question = desk.store.add("key", NIGHT)
    desk.ask(question)
    desk.write("night.txt", NEW)
    changed = desk.asked(question)
    assert visible(changed, frozenset(), desk.base) == changed
    desk.write("night.txt", NEW, "hr")
    assert visible(changed, frozenset(), desk.base) is None  # also before the next check
    after = desk.asked(question)
    assert (after.changes, "zeppelin" in str(described(question, after, "kb"))) == ((), False)


def test_changes_because_of_a_document_that_has_a_label_now_are_hidden(desk: Desk) -> None:
    question = desk.store.add("key", NIGHT)
    desk.ask(question)
    desk.write("guest.txt", "Who signs night shift requests? Night shift requests: guest signs.")
    desk.ask(question)
    remove(desk.base, [str(desk.folder / "guest.txt")])
    second = desk.asked(question)
    assert len(second.changes) == 2
    desk.write("guest.txt", "closed", "hr")
    shown = visible(second, frozenset(), desk.base)
    assert shown is not None
    assert (text_of(shown), shown.changes, second.untold, shown.untold) == (SIGNS, (), 2, 0)


# --- questions --------------------------------------------------------------------------------------------------------


def test_questions_are_private_files_of_their_owner(desk: Desk) -> None:
    mine, yours = desk.store.add("me", f" {NIGHT} "), desk.store.add("you", NIGHT)
    assert desk.store.add("me", NIGHT) == mine
    assert (mine.question, mine.id == yours.id) == (NIGHT, False)
    assert desk.store.questions("me") == (mine,)
    assert desk.store.questions() == (mine, yours)
    desk.check()
    if os.name == "posix":
        for folder in (desk.store.path.parent, desk.settings.derived_dir / "questions"):
            assert folder.stat().st_mode & 0o777 == 0o700
            assert {path.stat().st_mode & 0o777 for path in folder.rglob("*.json")} == {0o600}
    assert not desk.store.remove("you", mine.id)
    assert desk.store.remove("me", mine.id)
    assert not desk.store.remove("me", mine.id)
    assert desk.store.questions() == (yours,)
    assert list((desk.settings.derived_dir / "questions").rglob("*.json")) == []


def test_an_answer_whose_question_was_removed_is_deleted_at_the_next_check(desk: Desk) -> None:
    question = desk.store.add("me", NIGHT)
    desk.engine.before = lambda: desk.store.remove("me", question.id)
    desk.check()
    assert desk.store.answer(question) is not None
    with desk.store.checking("me"):
        assert desk.store.answer(question) is None


@pytest.mark.parametrize(
    ("question", "where", "says"), [("?", "", "no word"), ("x" * 12_001, "", "12,001"), (NIGHT, "date >", "date")]
)
def test_an_invalid_question_is_refused(desk: Desk, question: str, where: str, says: str) -> None:
    with pytest.raises(QuestionError, match=says):
        desk.store.add("me", question, where)
    assert not desk.store.path.exists()


def test_an_owner_has_a_limited_number_of_questions(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standing_questions, "MOST", 2)
    for number in range(2):
        desk.store.add("me", f"{NIGHT} {number}")
    with pytest.raises(QuestionError, match="Remove one"):
        desk.store.add("me", NIGHT)
    desk.store.add("me", f"{NIGHT} 0")  # is there already
    desk.store.add("you", NIGHT)


@pytest.mark.parametrize("damage", [b"", b"{", b'{"format": 2, "questions": []}', b'{"format": 1, "questions": [{}]}'])
def test_a_damaged_file_of_questions_is_named_and_stays(desk: Desk, damage: bytes) -> None:
    desk.store.add("me", NIGHT)
    desk.store.path.write_bytes(damage)
    works = desk.check, partial(desk.store.add, "me", "Another question?"), partial(desk.store.remove, "me", "x")
    for work in works:
        with pytest.raises(StorageError, match="not a valid file of standing questions"):
            work()
    assert desk.store.path.read_bytes() == damage


def test_a_damaged_answer_is_asked_again(desk: Desk) -> None:
    question = desk.store.add("me", NIGHT)
    (answer,) = desk.check()
    (path,) = (desk.settings.derived_dir / "questions").rglob("*.json")
    whole = path.read_bytes()
    altered = whole.replace(b"head of unit", b"HEAD of unit"), whole.replace(b'"format":1', b'"format":9', 1)
    for damage in (b"", whole[:-5], *altered):
        path.write_bytes(damage)
        assert desk.store.answer(question) is None
        assert [text_of(each) for each in desk.check()] == [text_of(answer)]


def test_a_knowledge_base_whose_id_is_a_path_takes_no_questions(desk: Desk) -> None:
    with pytest.raises(StorageError, match="cannot name a file"):
        QuestionStore(desk.settings, "../kb")


# --- webhook ----------------------------------------------------------------------------------------------------------


def test_a_webhook_that_cannot_be_reached_is_reported_without_its_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as door:
        port = door.getsockname()[1]
    assert post(f"http://me:geheim@127.0.0.1:{port}/x", {}) == "The webhook did not take the change: ConnectError."


def test_a_webhook_whose_answer_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standing_questions, "POST_S", 0.2)

    def trickle(door: socket.socket) -> None:
        with door.accept()[0] as connection, suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\n")
            while True:  # until the other end closes
                connection.sendall(b"x: 1\r\n")
                time.sleep(0.01)

    with socket.create_server(("127.0.0.1", 0)) as door, ThreadPoolExecutor(2) as pool:
        trickles = [pool.submit(trickle, door) for _ in range(2)]
        assert post(f"http://127.0.0.1:{door.getsockname()[1]}/x", {}).endswith((" TimeoutError.", " ReadTimeout."))
        for each in trickles:
            each.result()
