"""Drafting and reviewing as a user meets them, without a model."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest

from openbook.cli import run, session
from openbook.diagnosis.drafts import unreviewed, write_questions
from openbook.diagnosis.questions import load_questions
from openbook.diagnosis.reviewing import Review
from openbook.errors import StorageError
from openbook.knowledge import KnowledgeBase
from tests.diagnosis.bases import EMBEDDER, FERRIES, GERMAN, base_of


@pytest.fixture
def kb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Knowledge bases are searched with an embedder that needs no file."""
    monkeypatch.setattr(session, "open_base", lambda current: (KnowledgeBase.open(current.default_kb), EMBEDDER))
    base_of(tmp_path, ferries=FERRIES).close()
    return tmp_path / "kb"


def out(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    code = run([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def type_in(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(line + "\n" for line in lines)))


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_draft_writes_unreviewed_questions(kb: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "out" / "questions.jsonl"
    code, stdout, stderr = out(capsys, "questions", "draft", "--kb", kb, "-n", "6", "-o", path)
    assert code == 0, stderr
    assert "Nobody has read them yet" in stdout
    assert unreviewed(path) == len(read(path)) > 0
    code, _, stderr = out(capsys, "questions", "draft", "--kb", kb, "-o", path)
    assert code == 2
    assert "--force" in stderr
    assert out(capsys, "questions", "draft", "--kb", kb, "-n", "3", "-o", path, "--force")[0] == 0


def test_few_drafts_are_said_to_be_few(kb: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, stdout, _ = out(capsys, "questions", "draft", "--kb", kb, "-n", "500", "-o", tmp_path / "q.jsonl")
    assert "of 500 wanted" in stdout


def test_another_language_and_an_empty_base_write_nothing(
    kb: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    base_of(other, haus=GERMAN).close()
    path = tmp_path / "q.jsonl"
    code, _, stderr = out(capsys, "questions", "draft", "--kb", other / "kb", "-o", path)
    assert code == 2
    assert "Not in English" in stderr
    assert "No question could be drafted" in stderr
    KnowledgeBase.ensure(tmp_path / "empty", EMBEDDER.identity).close()
    assert out(capsys, "questions", "draft", "--kb", tmp_path / "empty", "-o", path)[0] == 4
    assert not path.exists()


def test_an_output_that_cannot_be_written_is_said_before_the_work(
    kb: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    code, _, stderr = out(capsys, "questions", "draft", "--kb", kb, "-o", tmp_path / "file" / "q.jsonl")
    assert code == 5
    assert "Cannot write" in stderr


def test_no_drafts_are_left_behind_by_a_failure(
    kb: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    before = sorted(tmp_path.iterdir())
    path = tmp_path / "new" / "q.jsonl"
    assert out(capsys, "questions", "draft", "--kb", kb, "-o", path, "--where", "type = (")[0] == 2
    assert out(capsys, "questions", "draft", "--kb", kb, "-o", path, "--model", "nosuch")[0] == 3
    monkeypatch.setattr("openbook.diagnosis.drafting.draft", interrupted)
    assert out(capsys, "questions", "draft", "--kb", kb, "-o", path)[0] == 130
    assert sorted(tmp_path.iterdir()) == before


DRAFTS: list[dict[str, Any]] = [
    {
        "id": f"d{i}",
        "question": f"How many {thing} are on the Isolde Marr?",
        "kind": "answerable",
        "answers": ["14"],
        "gold": {"document": "ferries.md", "page": None, "start": 11, "end": 77, "quote": FERRIES[11:77]},
        "tags": ["md"],
        "reviewed": False,
    }
    for i, thing in enumerate(["places", "lifts", "bars", "decks"])
]


@pytest.fixture
def drafts(tmp_path: Path) -> Path:
    path = tmp_path / "drafts.jsonl"
    write_questions(path, [*DRAFTS, {"question": "By hand?", "answers": ["yes"], "note": "mine"}])
    return path


def test_review_saves_every_decision(
    kb: Path, drafts: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    type_in(monkeypatch, "a", "r", "q", "Is there a bar?", "w", "yes | one bar", "a", "s")
    code, stdout, _ = out(capsys, "questions", "review", drafts, "--kb", kb)
    assert code == 0
    assert "1 of 4" in stdout
    assert f"»{FERRIES[11:77]}«" in stdout
    assert "The evacuation slide" in stdout  # the passage around the quote
    assert "Reviewed: 3; still drafts: 1." in stdout
    lines = read(drafts)
    assert [line.get("reviewed", "by hand") for line in lines] == [True, True, False, "by hand"]
    assert (lines[1]["question"], lines[1]["answers"]) == ("Is there a bar?", ["yes", "one bar"])
    assert lines[3] == {"question": "By hand?", "answers": ["yes"], "note": "mine"}


def test_an_interrupted_review_goes_on_where_it_stopped(
    kb: Path, drafts: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    type_in(monkeypatch, "a")  # and the pipe ends
    code, stdout, _ = out(capsys, "questions", "review", drafts, "--kb", kb)
    assert code == 0
    assert "Stopped. Reviewed: 2; still drafts: 3." in stdout
    type_in(monkeypatch, "a", "x")
    assert "1 of 3" in out(capsys, "questions", "review", drafts, "--kb", kb)[1]
    assert unreviewed(drafts) == 2


def test_what_is_wrong_cannot_be_accepted(
    drafts: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    type_in(monkeypatch, "z", "q", "by hand?", "a", "q", "Is it?", "w", "|", "a", "x")
    code, stdout, _ = out(capsys, "questions", "review", drafts)
    assert code == 0
    assert "'z' is none of a, q, w, r, s, x." in stdout
    assert "The same question is there already" in stdout
    assert read(drafts)[0]["kind"] == "unanswerable"
    assert read(drafts)[0]["reviewed"] is True


def test_review_without_the_passage_says_why(
    kb: Path, drafts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = [DRAFTS[0] | {"gold": DRAFTS[0]["gold"] | {"start": 12}}, DRAFTS[1] | {"gold": None, "answers": []}]
    changed.append(DRAFTS[2] | {"gold": DRAFTS[2]["gold"] | {"document": "gone.md"}})
    write_questions(drafts, changed)
    type_in(monkeypatch, "s", "a", "s", "s")
    _, stdout, _ = out(capsys, "questions", "review", drafts, "--kb", kb)
    assert "The document has changed" in stdout
    assert "No passage" in stdout
    assert "It has no accepted answer" in stdout
    assert "no such document" in stdout


def reviewed(path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What a review says; afterwards the file is one that a diagnosis reads."""
    code, stdout, stderr = out(capsys, "questions", "review", path)
    assert code == 0, stderr
    assert list(load_questions(path))
    return stdout


def test_a_question_of_general_knowledge_stays_one(
    drafts: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_questions(
        drafts, [{"question": "Capital of France?", "answers": ["Lyon"], "kind": "world", "reviewed": False}]
    )
    type_in(monkeypatch, "w", "Paris", "a")
    reviewed(drafts, capsys)
    (question,) = load_questions(drafts)
    assert (question.kind, question.answers, question.reviewed) == ("world", ("Paris",), True)


def test_what_is_marked_unanswerable_can_be_accepted_or_answered(
    drafts: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    marked = {"unanswerable": True, "reviewed": False}
    write_questions(drafts, [{"question": "Who built it?"} | marked, {"question": "Who owns it?"} | marked])
    type_in(monkeypatch, "a", "w", "Ada Brandl", "a")
    assert "Reviewed: 2; still drafts: 0." in reviewed(drafts, capsys)
    assert [(q.kind, q.answers) for q in load_questions(drafts)] == [
        ("unanswerable", ()),
        ("answerable", ("Ada Brandl",)),
    ]


def test_an_edit_that_would_spoil_the_file_is_refused(
    drafts: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = drafts.read_bytes()
    type_in(monkeypatch, "q", "???", "x")
    assert "It stays as it is: The question is empty" in reviewed(drafts, capsys)
    assert drafts.read_bytes() == before
    write_questions(drafts, [DRAFTS[0] | {"question": "?"}])
    type_in(monkeypatch, "a", "q", "Where?", "a")
    assert "It cannot be accepted: The question is empty" in reviewed(drafts, capsys)


def test_review_reads_what_a_diagnosis_reads(
    drafts: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = b'\xef\xbb\xbf{"question": "When?", "answers": "09:40", "reviewed": false}\n'
    compressed = drafts.with_name("drafts.jsonl.gz")
    for path, content in ((drafts, line), (compressed, gzip.compress(line))):
        path.write_bytes(content)
        type_in(monkeypatch, "a")
        assert "Answers:  09:40\n" in reviewed(path, capsys)
        assert [(q.answers, q.reviewed) for q in load_questions(path)] == [(("09:40",), True)]
    for bad in ({"mine": 1}, {"id": "d0"}, {"reviewed": False, "tags": 3}):
        write_questions(drafts, [DRAFTS[0], {"question": "By hand?", "answers": ["yes"]} | bad])
        code, _, stderr = out(capsys, "questions", "review", drafts)
        assert (code, "line 2 is no valid question" in stderr) == (2, True)


def test_one_review_at_a_time(drafts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    link = tmp_path / "link.jsonl"
    link.symlink_to(drafts)
    with Review.open(drafts) as first:
        for path in (drafts, link):
            code, _, stderr = out(capsys, "questions", "review", path)
            assert (code, "is being reviewed already" in " ".join(stderr.split())) == (5, True)
        assert first.accept(0) == ""
    with Review.open(link) as second:
        assert second.waiting() == [1, 2, 3]
        assert second.accept(1) == ""
    assert link.is_symlink()
    assert unreviewed(drafts) == 2
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_what_something_else_wrote_meanwhile_is_kept_and_so_is_what_was_decided(drafts: Path) -> None:
    by_an_editor = drafts.read_text().replace("decks", "cranes")
    with Review.open(drafts) as review:
        review.accept(0)
        drafts.write_text(by_an_editor)
        with pytest.raises(StorageError, match=r"all that you decided are in review-1-of-drafts\.jsonl"):
            review.reject(1)
        with pytest.raises(StorageError, match=r"all that you decided are in review-2-of-drafts\.jsonl"):
            review.accept(2)
    assert drafts.read_text() == by_an_editor
    kept = [line["reviewed"] for line in read(drafts.with_name("review-2-of-drafts.jsonl"))[:-1]]
    assert kept == [True, True, False]
    with Review.open(drafts) as review:
        drafts.unlink()
        with pytest.raises(StorageError, match="was changed"):
            review.accept(0)
    assert not drafts.exists()


def test_bad_files_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert out(capsys, "questions", "review", tmp_path / "none.jsonl")[0] == 5
    (tmp_path / "bad.jsonl").write_text("{}\n")
    code, _, stderr = out(capsys, "questions", "review", tmp_path / "bad.jsonl")
    assert code == 2
    assert "line 1" in stderr
    (tmp_path / "empty.jsonl").write_text("")
    assert "still drafts: 0." in out(capsys, "questions", "review", tmp_path / "empty.jsonl")[1]


@pytest.fixture
def beir(tmp_path: Path) -> Path:
    folder = tmp_path / "beir"
    (folder / "qrels").mkdir(parents=True)
    (folder / "queries.jsonl").write_text('{"_id": "q1", "text": "Who opened it?", "answers": ["Lila Ortega"]}\n')
    (folder / "corpus.jsonl").write_text('{"_id": "d1", "title": "The bridge", "text": "Lila Ortega opened it."}\n')
    (folder / "qrels" / "dev.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\n")
    return folder


def test_import_writes_questions_and_documents_that_can_be_diagnosed(
    beir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = beir
    questions, documents = tmp_path / "q.jsonl", tmp_path / "docs"
    code, stdout, _ = out(capsys, "questions", "import", folder, "-o", questions, "--documents", documents)
    assert (code, "1 documents in" in stdout) == (0, True)
    (question,) = load_questions(questions)
    assert (question.answers, question.gold and question.gold.document) == (("Lila Ortega",), "d1.md")
    assert (documents / "d1.md").read_text() == "# The bridge\n\nLila Ortega opened it.\n"
    code, _, error = out(capsys, "questions", "import", folder, "-o", questions)
    assert (code, "--force" in error) == (2, True)
    code, _, error = out(capsys, "questions", "import", folder, "-o", questions, "--force", "--split", "tset")
    assert (code, "There are dev." in error) == (2, True)
    code, _, error = out(capsys, "questions", "import", questions, "-o", tmp_path / "r.jsonl", "--documents", documents)
    assert (code, "for BEIR folders" in error) == (2, True)
    assert out(capsys, "questions", "import", questions, "-o", tmp_path / "r.jsonl")[0] == 0
    assert (tmp_path / "r.jsonl").read_bytes() == questions.read_bytes()
    assert out(capsys, "questions", "import", questions, "-o", tmp_path / "r.jsonl.gz")[0] == 0
    assert list(load_questions(tmp_path / "r.jsonl.gz")) == [question]


def test_import_writes_over_no_document_unasked(beir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    documents = tmp_path / "docs"
    documents.mkdir()
    (documents / "d1.md").write_text("mine")
    arguments = ("questions", "import", beir, "-o", tmp_path / "q.jsonl", "--documents", documents)
    code, _, error = out(capsys, *arguments)
    assert (code, "docs holds files already" in error, "--force" in error) == (2, True, True)
    assert (documents / "d1.md").read_text() == "mine"
    assert not (tmp_path / "q.jsonl").exists()
    assert out(capsys, *arguments, "--force")[0] == 0
    assert "Lila Ortega" in (documents / "d1.md").read_text()


def squad(identity: str, context: str) -> str:
    given = {"text": ["here"], "answer_start": [context.index("here")]}
    return json.dumps({"id": identity, "context": context, "question": "Where?", "answers": given}) + "\n"


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("beir/qrels/dev.tsv", "q1\td1\t0\n", "dev.tsv judges no document relevant for a query in beir"),
        ("beir/queries.jsonl", '{"_id": "q1", "text": "Who?", "answers": ["Ada"]}\n' * 2, "line 2 is no valid question"),
        ("beir/queries.jsonl", '{"_id": "%s", "text": "Who?", "answers": ["Ada"]}\n' % ("q" * 201), "1 to 200 characters"),
        ("squad.jsonl", squad("s" * 201, "It stands here by the harbour."), "1 to 200 characters"),
        ("squad.json", "[" + squad("s", "It stands here " + "and there " * 110_000) + "]", "Shorten it"),
        ("ragas.jsonl", json.dumps({"id": "r" * 201, "user_input": "Who?", "reference": "Ada"}), "1 to 200 characters"),
        ("ragas.json", "[]", "ragas.json holds no questions"),
    ],
)  # fmt: skip
def test_what_could_not_be_read_again_is_not_imported(
    beir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: str, says: str
) -> None:
    (tmp_path / name).write_text(content)
    if "q" * 201 in content:
        (beir / "qrels" / "dev.tsv").write_text("q" * 201 + "\td1\t1\n")
    source = beir if name.startswith("beir") else tmp_path / name
    arguments = ("questions", "import", source, "-o", tmp_path / "q.jsonl")
    code, _, error = out(capsys, *arguments)
    assert (code, says in " ".join(error.split())) == (2, True), error
    assert not (tmp_path / "q.jsonl").exists()
