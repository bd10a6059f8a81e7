from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.answers.ask import ask
from openbook.answers.overview import MAX_WINDOWS, points_of, windows_of
from openbook.answers.retrieval import Corpus, Options, overview_of
from openbook.core.parallel import Listener
from openbook.core.records import Completion, Decoding, Prompt, sha256_hex
from openbook.inference import FrozenModel
from openbook.knowledge import KnowledgeBase, RunOptions, add
from openbook.knowledge.index.scope import UNLABELLED
from openbook.proofs.replay import replay
from openbook.testing import EchoEngine, HashEmbedder
from tests.conftest import base_with

DOCUMENTS = ["/d/leave-policy.md", "/d/archive/leave-policy-2023.md", "/d/a/notes.txt", "/d/b/notes.txt"]


@pytest.mark.parametrize(
    ("question", "kind", "documents"),
    [
        ("Summarise leave-policy.md", "summary", ["/d/leave-policy.md"]),
        ("please summarize the file 'leave policy'.", "summary", ["/d/leave-policy.md"]),
        ("Sum up the weather.", "summary", ["/d/weather.md"]),
        ("give me a summary of a/notes.txt", "summary", ["/d/a/notes.txt"]),
        ("compare leave-policy-2023.md with leave-policy", "comparison", [DOCUMENTS[1], DOCUMENTS[0]]),
    ],
)
def test_a_question_about_whole_documents_names_them(question: str, kind: str, documents: list[str]) -> None:
    assert overview_of(question, lambda: DOCUMENTS, {"the weather": "/d/weather.md"}.get) == (kind, documents)


@pytest.mark.parametrize(
    "question",
    [
        "Summarise notes.txt",  # two documents have that name
        "Summarise the weather",
        "compare leave-policy.md with leave-policy.md",
        "compare leave-policy.md with the weather",
        "Summarise",
    ],
)
def test_any_other_question_is_searched_for(question: str) -> None:
    assert overview_of(question, lambda: DOCUMENTS, {"rain": DOCUMENTS[0]}.get) is None


@given(st.text(max_size=60))
def test_any_text_is_a_question(text: str) -> None:
    overview_of(f"compare {text} with {text}", lambda: DOCUMENTS, lambda topic: None)


def test_a_point_is_a_list_item_that_was_not_cut_off() -> None:
    text = "1. **28 days** of leave.\n\n2. - 5 crowns.\n* - 28. April is free.\n-\n2**10 seats are by `**kwargs`.\n- Never on"
    points = [
        "- 28 days of leave.",
        "- - 5 crowns.",
        "- 28. April is free.",
        "- 2**10 seats are by `**kwargs`.",
        "- Never on",
    ]
    assert points_of(written(text)) == points
    assert points_of(written(text, "length")) == points[:-1]
    assert points_of(written("Only the beg", "length")) == ["- Only the beg"]


def written(text: str, finish: Literal["end", "length"] = "end") -> Completion:
    return Completion(text, finish, 1, 1, sha256_hex(b""), "echo")


class Notes(EchoEngine):
    """Takes as its point the first sentence of what it reads, and writes the points down again."""

    def __init__(self) -> None:
        super().__init__()
        self.prompts: list[Prompt] = []

    def _answer(self, prompt: Prompt) -> str:
        self.prompts.append(prompt)
        if prompt.passages:
            return prompt.passages[0].split("\n", 1)[1].strip().split("\n\n")[-1].split(". ")[0].rstrip(".") + "."
        return "\n".join(f"- {line.partition(': ')[2]}" for line in prompt.question.splitlines() if ": " in line)


@pytest.fixture
def base(tmp_path: Path) -> KnowledgeBase:
    parts = (f"## Part {i}\n\nPart number {i} is about subject {i * 7}. {'More of it. ' * 60}\n\n" for i in range(50))
    texts = {
        "old.md": "# Leave 2023\n\nA full-time employee has 24 days of leave. It was different then.",
        "new.md": "# Leave\n\nA full-time employee has 28 days of leave. It is different now.",
        "long.md": f"# Long\n\n{''.join(parts)}",
    }
    return base_with(tmp_path, texts)


def test_documents_are_compared_with_a_quote_for_every_sentence(base: KnowledgeBase, embedder: HashEmbedder) -> None:
    engine = Notes()
    steps: list[tuple[int, int]] = []
    listener = Listener(progress=lambda *step: steps.append(step))
    answer = ask("Compare old.md with new.md", FrozenModel(engine), Corpus(base, embedder), listener=listener)
    *parts, _ = map(engine.count_prompt_tokens, engine.prompts)
    assert list(dict.fromkeys(steps)) == [(0, sum(parts)), (parts[0], sum(parts)), (sum(parts), sum(parts))]
    assert "24 days" in answer.answer
    assert "28 days" in answer.answer
    assert {Path(citation.document).name for citation in answer.citations} == {"old.md", "new.md"}
    assert answer.receipt.strategy == "comparison"
    assert [len(prompt.passages) for prompt in engine.prompts] == [1, 1, 0]
    assert replay(answer.receipt, FrozenModel(Notes()), base).identical


def test_parts_of_a_long_document_are_read_up_to_a_stated_bound(base: KnowledgeBase, embedder: HashEmbedder) -> None:
    steps: list[tuple[int, int]] = []
    listener = Listener(progress=lambda *step: steps.append(step))
    answer = ask("summarise long.md", FrozenModel(Notes()), Corpus(base, embedder), listener=listener)
    assert len(answer.passages) == MAX_WINDOWS
    assert answer.notes[1].startswith(f"{MAX_WINDOWS} of ")
    assert steps == sorted(steps)
    assert steps[-1] == (steps[-1][1], steps[-1][1])
    points = answer.answer.splitlines()
    assert points[0] == "- Part number 0 is about subject 0."
    assert len(points) == len(set(points)) == len(set(steps)) - 1
    assert {each.support for each in answer.sentences} == {"backed"}
    assert replay(answer.receipt, FrozenModel(Notes()), base).identical
    starts = [hit.passage.start for hit in answer.passages]
    assert starts == sorted(starts)
    assert starts[-1] > 0.9 * len(base.text(answer.passages[0].passage.document) or "")


def test_a_topic_is_summarised_from_the_nearest_document_that_may_be_seen(tmp_path: Path) -> None:
    base = base_with(tmp_path, {"ferry.md": "The ferry sails at nine. More."})
    (tmp_path / "boat.md").write_text("The ferry is secret. More.", encoding="utf-8")
    add(base, [tmp_path / "boat.md"], HashEmbedder(), RunOptions(labels=frozenset({"crew"})))
    shown: list[str] = []
    engine, corpus = Notes(), Corpus(base, HashEmbedder())
    answer = ask("sum up the ferry", FrozenModel(engine), corpus, listener=Listener(on_text=shown.append))
    assert answer.answer == "- The ferry sails at nine."
    assert shown
    assert answer.answer.startswith("".join(shown))
    assert answer.notes[0].startswith("Summary of ")
    assert "secret" not in str(engine.prompts)
    referring = ask("Summarise it", FrozenModel(Notes()), corpus, Options(earlier=("When does the ferry sail?",)))
    assert referring.answer == answer.answer


def test_the_instruction_reaches_every_part_and_empty_points_are_left_out(base: KnowledgeBase) -> None:
    class Silent(Notes):
        def _answer(self, prompt: Prompt) -> str:
            self.prompts.append(prompt)
            return "The text does not state more." if len(self.prompts) == 2 else f"Point {len(self.prompts)}."

    engine = Silent()
    options = Options(decoding=Decoding(temperature=0.5, seed=3, max_tokens=50), instruction="In German.")
    answer = ask("summarise long.md", FrozenModel(engine), Corpus(base, HashEmbedder()), options)
    assert answer.answer.splitlines()[:2] == ["- Point 1.", "- Point 3."]
    assert all("In German." in prompt.question for prompt in engine.prompts)
    numbers = [block.split("]")[0] for prompt in engine.prompts for block in prompt.passages]
    assert numbers == [f"[{n}" for n in range(1, MAX_WINDOWS + 1)]


def test_documents_share_the_bound_and_a_cancelled_overview_says_so(
    base: KnowledgeBase, embedder: HashEmbedder
) -> None:
    long, new = (next(d for d in base.documents(UNLABELLED) if d.endswith(name)) for name in ("long.md", "new.md"))
    hits, notes = windows_of([base.passages(long), base.passages(new)])
    assert len(hits) == MAX_WINDOWS // 2 + 1
    assert notes
    corpus, at_once = Corpus(base, embedder), Listener(cancelled=lambda: True)
    answer = ask("Summarise new.md", FrozenModel(Notes()), corpus, listener=at_once)
    assert answer.finish_reason == "cancelled"
    assert "Cancelled before the answer was complete." in answer.notes
    engine = Notes()
    after_one = Listener(cancelled=lambda: bool(engine.prompts))
    ask("Summarise long.md", FrozenModel(engine), corpus, listener=after_one)
    assert len(engine.prompts) == 1
