from __future__ import annotations

import uuid

import pytest

from openbook.cluster.object_store import open_s3
from openbook.knowledge.blobs import Blobs
from openbook.testing import BlobsSuite


class TestS3Blobs(BlobsSuite):
    @pytest.fixture(autouse=True)
    def _url(self, object_store_url: str) -> None:
        self.url = object_store_url

    def make_blobs(self) -> Blobs:
        return open_s3(self.url.replace("?", f"/{uuid.uuid4().hex}?"))
