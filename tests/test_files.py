from __future__ import annotations

import errno

import pytest

from openbook.errors import StorageError
from openbook.files import storage_errors


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EROFS, "the disk is read-only; set OPENBOOK_HOME"),
        (errno.EACCES, "permission denied"),
    ],
)
def test_refusals_of_the_disk_say_what_to_do(code: int, advice: str) -> None:
    with pytest.raises(StorageError, match=f"Cannot keep x: {advice}"), storage_errors("keep x"):
        raise OSError(code, "words of the system")
