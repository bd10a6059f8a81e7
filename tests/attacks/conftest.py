from tests.knowledge.conftest import library as library  # the fixture
