"""The living side: documents in, passages out, in a folder whose truth is one SQLite file.

`KnowledgeBase.ensure` and `.open` give a knowledge base, `add` puts files into it as one new version, `.search` finds
passages by meaning and by words. The BM25 and vector indexes beside the SQLite file are derived from it and can be
deleted at any time.
"""

from __future__ import annotations

from openbook.knowledge.adding import AddReport, add
from openbook.knowledge.base import KnowledgeBase

__all__ = ["AddReport", "KnowledgeBase", "add"]
