"""What a search finds is a function of the passages searched: not of segments, order, history or what else is kept."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openbook.knowledge.check import index_problems
from openbook.knowledge.index.segment_set import SegmentSet
from tests.knowledge.small_bases import Base, Text, ids, plain_bm25, plain_dense, search

WORDS = st.sampled_from(
    "ferry ferries harbour bridge opened ticket Über naïve 水曜日 don't O'Brien x_y the of 9".split()
)
SENTENCE = st.lists(WORDS, min_size=1, max_size=8).map(" ".join)
HEADINGS = st.lists(st.sampled_from(["Fares", "Times", "The old bridge"]), max_size=2).map(tuple)
PASSAGE = st.tuples(HEADINGS, st.one_of(SENTENCE, SENTENCE, SENTENCE, st.just(" \n")))
TEXT = st.builds(Text, st.sampled_from(["", "Ferries", "Harbour"]), st.lists(PASSAGE, max_size=4).map(tuple))
TEXTS = st.lists(TEXT, min_size=1, max_size=7)
QUERY = st.one_of(SENTENCE, st.sampled_from(["who are you", "", "zebra", "水曜"]))


def same_in_any_history(
    tmp_path_factory: pytest.TempPathFactory, texts: list[Text], query: str, data: st.DataObject
) -> None:
    plain = Base()
    alone = [plain.add(text) for text in texts]
    with tempfile.TemporaryDirectory(dir=tmp_path_factory.getbasetemp()) as name:
        folder = Path(name)
        expected = search(plain, SegmentSet.open(folder, plain.source(), ids(*alone)), alone, query)
        base, others = Base(), data.draw(TEXTS)
        arriving = [(text, True) for text in texts] + [(text, False) for text in others]
        data.draw(st.randoms(use_true_random=False)).shuffle(arriving)
        contents: list[int] = []
        live: list[int] = []
        saved = SegmentSet.open(folder, base.source(), ids())
        for text, wanted in arriving:
            contents.append(base.add(text))
            live += [contents[-1]] if wanted else []
            if data.draw(st.booleans()):
                saved = SegmentSet.refresh(folder, base.source(), ids(*contents))
                assert saved.contents().tolist() == contents
        indexes = SegmentSet.open(folder, base.source(), ids(*contents))
        assert search(base, indexes, live, query) == expected
        if data.draw(st.booleans()):
            assert (
                search(base, SegmentSet.refresh(folder, base.source(), ids(*live), forget=True), live, query)
                == expected
            )
            assert not list(index_problems(folder, base.source(), ids(*live)))


test_segments_order_and_other_contents_do_not_matter = settings(max_examples=8)(
    given(TEXTS, QUERY, st.data())(same_in_any_history)
)
test_segments_order_and_other_contents_do_not_matter_in_many_cases = pytest.mark.laws(
    settings(max_examples=100)(given(TEXTS, QUERY, st.data())(same_in_any_history))
)


@given(TEXTS, QUERY, st.integers(1, 12))
def test_scores_are_those_of_a_plain_computation(texts: list[Text], query: str, limit: int) -> None:
    base = Base()
    contents = [base.add(text) for text in texts]
    found = search(base, SegmentSet.open(Path("absent"), base.source(), ids(*contents)), contents, query, limit)
    dense = [(f[1], f[2]) for f in found if f[0] == "dense"]
    words = [(f[1], f[2]) for f in found if f[0] == "words"]
    assert [s for _, s in dense] == pytest.approx([s for _, s in plain_dense(texts, query, limit)], abs=1e-12)
    assert [s for _, s in words] == pytest.approx([s for _, s in plain_bm25(texts, query, limit)], abs=1e-12)
    assert dict(dense) == pytest.approx({n: s for n, s in plain_dense(texts, query, 99) if n in dict(dense)}, abs=1e-12)
    assert dict(words) == pytest.approx({n: s for n, s in plain_bm25(texts, query, 99) if n in dict(words)}, abs=1e-12)
    names = [f[0] for f in found if len(f) == 5]
    assert len(names) == len(set(names))


def damage_changes_no_answer(tmp_path_factory: pytest.TempPathFactory, texts: list[Text], data: st.DataObject) -> None:
    base = Base()
    contents = [base.add(text) for text in texts]
    with tempfile.TemporaryDirectory(dir=tmp_path_factory.getbasetemp()) as name:
        folder, chance = Path(name), data.draw(st.randoms(use_true_random=False))
        for upto in range(1, len(contents) + 1):
            SegmentSet.refresh(folder, base.source(), ids(*contents[:upto]))
        expected = search(base, SegmentSet.open(folder, base.source(), ids(*contents)), contents, "ferry bridge")
        files = sorted(p for p in (folder / "index").rglob("*") if p.is_file())
        damage(data.draw(st.sampled_from(files)), data.draw(st.sampled_from(["flip", "truncate", "delete"])), chance)
        opened = SegmentSet.open(folder, base.source(), ids(*contents))
        assert search(base, opened, contents, "ferry bridge") == expected
        assert list(index_problems(folder, base.source(), ids(*contents)))
        again = SegmentSet.refresh(folder, base.source(), ids(*contents))
        assert search(base, again, contents, "ferry bridge") == expected
        assert not list(index_problems(folder, base.source(), ids(*contents)))


test_damage_to_any_file_changes_no_answer = settings(max_examples=8)(given(TEXTS, st.data())(damage_changes_no_answer))
test_damage_to_any_file_changes_no_answer_in_many_cases = pytest.mark.laws(
    settings(max_examples=100)(given(TEXTS, st.data())(damage_changes_no_answer))
)


def damage(path: Path, how: str, chance: random.Random) -> None:
    data = bytearray(path.read_bytes())
    if how == "delete":
        path.unlink()
        return
    if how == "flip":
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    else:
        data = data[: chance.randrange(len(data))]
    path.write_bytes(bytes(data))
