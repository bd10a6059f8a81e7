from __future__ import annotations

import pytest

from openbook.core.errors import KnowledgeError
from openbook.knowledge.store.names import resolve


def test_a_document_is_named_by_path_folder_or_the_end_of_one_path() -> None:
    paths = ["/x/a.txt", "/x/deep/a.txt", "/x/deep/b.txt"]
    assert resolve(paths, "/x/a.txt") == ["/x/a.txt"]
    assert resolve(paths, "/x/deep/") == ["/x/deep/a.txt", "/x/deep/b.txt"]
    assert resolve(paths, "b.txt") == ["/x/deep/b.txt"]
    with pytest.raises(KnowledgeError, match="2 documents end in"):
        resolve(paths, "a.txt")
    with pytest.raises(KnowledgeError, match=r"Did you mean 'b\.txt'"):
        resolve(paths, "bb.txt")
