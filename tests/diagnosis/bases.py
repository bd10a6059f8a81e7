"""Small knowledge bases for drafting."""

from __future__ import annotations

from pathlib import Path

from openbook.knowledge import KnowledgeBase, add
from openbook.testing import HashEmbedder

EMBEDDER = HashEmbedder(256)

FERRIES = """# Ferries

The Isolde Marr has 14 wheelchair places and a lift to every deck. The evacuation slide of the Isolde Marr takes 95 seconds
to inflate. The nightly backup starts at 01:40 and is usually over by 03:15. Found items are kept for 60 days.

There is a bar on the Isolde Marr. The crew of the Isolde Marr is large.

| Name | Room | Ext. |
|---|---|---|
| Ailsa Petrie | Albatross | 4101 |
| Dragan Ilić | W3 | 4352 |
"""
RESERVE = """# The reserve ship

Dogs stay on the Petra Lindqvist. The crew of the Petra Lindqvist is small. The Petra Lindqvist sails in winter.
"""
OLD = """# Rules of 2020

Found items are kept for 30 days. It costs €5. A fadder is a colleague from another department.
"""
GERMAN = """# Hausordnung

Die Fähre fährt um neun Uhr ab und kommt um zehn Uhr an. Der Kapitän ist Herr Meyer. Hunde dürfen nicht auf das obere Deck.
Fundsachen werden 60 Tage lang im Büro des Hafenmeisters aufbewahrt. Danach gehen sie an das Rote Kreuz in der Stadt.
"""


def base_of(folder: Path, **files: str) -> KnowledgeBase:
    """A knowledge base of Markdown files, by name."""
    docs = folder / "docs"
    docs.mkdir()
    for name, text in files.items():
        (docs / f"{name}.md").write_text(text, encoding="utf-8")
    base = KnowledgeBase.ensure(folder / "kb", EMBEDDER.identity)
    add(base, [docs], EMBEDDER)
    return base
