from __future__ import annotations

import os
from pathlib import Path

import pytest

from openbook.core.errors import ConfigError, StorageError
from openbook.knowledge.index.blobs import Blobs, FolderBlobs, open_blobs
from openbook.testing import MemoryBlobs
from tests.conformance.blobs import BlobsSuite


class TestMemoryBlobs(BlobsSuite):
    def make_blobs(self) -> Blobs:
        return MemoryBlobs()


class TestFolderBlobs(BlobsSuite):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path / "shared"

    def make_blobs(self) -> Blobs:
        return FolderBlobs(self.folder)

    def test_what_a_killed_writer_left_is_no_object(self) -> None:
        blobs = self.make_blobs()
        blobs.put("a/one", b"1")
        (self.folder / "a" / ".two.123-0123abcd").write_bytes(b"half")
        assert [each.key for each in blobs.list("")] == ["a/one"]


def test_a_url_is_a_folder_or_names_a_kind_of_storage(tmp_path: Path) -> None:
    open_blobs(str(tmp_path)).put("a", b"1")
    assert open_blobs(tmp_path.as_uri()).get("a") == b"1"
    assert open_blobs(tmp_path.as_uri()).url == open_blobs(str(tmp_path)).url == tmp_path.as_uri()
    with pytest.raises(ConfigError, match=r"no storage of the kind s3a://\. Did you mean 's3'\?") as refused:
        open_blobs("s3a://key:secret@bucket")
    assert "secret" not in str(refused.value)
    with pytest.raises(ConfigError, match="three slashes"):
        open_blobs("file://host/folder")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path)
    blobs.put("a", b"1")
    (tmp_path / "a").chmod(0)
    with pytest.raises(StorageError, match="Permission denied"):
        blobs.get("a")
