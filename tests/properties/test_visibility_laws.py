"""Who sees what: whatever several callers upload, rename, label, copy and remove, each sees a text exactly if they may see
some document that holds it, in every version."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from openbook.knowledge import KnowledgeBase, RunOptions, Scope, add, remove, sync
from openbook.testing import HashEmbedder

LABELS = ("hr", "legal")
HOLDERS = [frozenset[str](), frozenset({"hr"}), frozenset({"legal"}), frozenset(LABELS)]
NAMES = ("a.md", "b.md", "c.md")
CALLERS = st.sampled_from(("anna", "ben"))


@dataclass(eq=False)
class Document:
    """The model of one: the labels that it carries now, and the texts that it had, by version."""

    labels: set[str] = field(default_factory=set)
    texts: dict[int, str] = field(default_factory=dict)


@dataclass
class Model:
    """`at`: the document that is at a path, or was there last. A path keeps the labels that were given to it."""

    at: dict[str, Document] = field(default_factory=lambda: defaultdict(Document))
    now: dict[str, str] = field(default_factory=dict)  # texts by path
    documents: list[Document] = field(default_factory=list)

    def put(self, path: str, text: str, labels: frozenset[str] = frozenset()) -> None:
        self.at[path].labels |= labels
        self.now[path] = text

    def move(self, old: str, new: str) -> None:
        before = self.at[new].labels
        self.at[new] = self.at.pop(old)
        self.at[new].labels |= before
        self.now[new] = self.now.pop(old)

    def commit(self, version: int) -> None:
        for path, text in self.now.items():
            self.at[path].texts[version] = text
            if self.at[path] not in self.documents:
                self.documents.append(self.at[path])

    def seen(self, version: int, held: frozenset[str]) -> set[str]:
        return {d.texts[version] for d in self.documents if version in d.texts and d.labels <= held}


WHICH = st.integers(0, 11)  # one of those that are there
STEPS = st.one_of(
    st.tuples(st.just("write"), st.sampled_from(NAMES)),
    st.tuples(st.just("rename"), WHICH, st.sampled_from(NAMES)),
    st.tuples(st.just("delete"), WHICH),
    st.tuples(st.just("label"), WHICH, st.sampled_from(LABELS)),
    st.tuples(st.just("upload"), CALLERS, st.sampled_from(NAMES), WHICH, st.sets(st.sampled_from(LABELS))),
    st.tuples(st.just("take back"), CALLERS, st.sampled_from(NAMES)),
)


@settings(max_examples=settings().max_examples // 2)
@given(st.lists(STEPS, min_size=4, max_size=14))
def test_a_text_is_seen_by_who_may_see_a_document_that_holds_it(sequence: list[tuple[object, ...]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        check(Path(folder), sequence)


def check(folder: Path, sequence: list[tuple[object, ...]]) -> None:
    embedder, model, texts = HashEmbedder(), Model(), ["The first text."]
    base = KnowledgeBase.ensure(folder / "kb", embedder.identity)
    docs = folder / "docs"
    docs.mkdir()
    (docs / "a.md").write_text(texts[0])
    model.put(str(docs / "a.md"), texts[0])
    versions = [sync(base, docs, embedder).version]
    model.commit(versions[0])
    for step in sequence:
        files = sorted(docs.iterdir())
        match step:
            case "write", str(name):
                texts.append(f"Text number {len(texts)}.")
                (docs / name).write_text(texts[-1])
                model.put(str(docs / name), texts[-1])
                report = sync(base, docs, embedder)
            case "rename", int(which), str(name) if files and files[which % len(files)].name != name:
                old = files[which % len(files)]
                old.replace(docs / name)
                model.move(str(old), str(docs / name))
                report = sync(base, docs, embedder)
            case "delete", int(which) if files:
                gone = files[which % len(files)]
                gone.unlink()
                del model.now[str(gone)]
                report = sync(base, docs, embedder) if len(files) > 1 else remove(base, [str(gone)])
            case "label", int(which), str(label) if files:
                path = files[which % len(files)]
                model.put(str(path), path.read_text(), frozenset({label}))
                report = add(base, [path], embedder, RunOptions(labels=frozenset({label})))
            case "upload", str(caller), str(name), int(which), set(labels):
                path = folder / caller / name
                path.parent.mkdir(exist_ok=True)
                path.write_text(texts[which % len(texts)])
                model.put(str(path), path.read_text(), frozenset(labels))
                report = add(base, [path], embedder, RunOptions(labels=frozenset(labels)))
            case "take back", str(caller), str(name) if str(folder / caller / name) in model.now:
                del model.now[str(folder / caller / name)]
                report = remove(base, [str(folder / caller / name)])
            case _:
                continue
        versions.append(report.version)
        model.commit(report.version)
    for version in sorted(set(versions)):
        for held in HOLDERS:
            scope = Scope(None if version == versions[-1] else version, labels=held)
            _, hits = base.search("text number", embedder, 100, scope)
            assert {hit.passage.text for hit in hits} == model.seen(version, held), (version, held)
    base.close()
