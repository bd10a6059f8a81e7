from openbook.records import Reranker
from openbook.testing import RerankerSuite, WordReranker


class TestWordReranker(RerankerSuite):
    def make_reranker(self) -> Reranker:
        return WordReranker()
