"""ONNX files: what is written is read back, another implementation reads it too, and broken bytes have one error."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.inference.onnxfile import Graph, Node, NotOnnx, constant, read_graph, write_model

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
NUMBERS = st.integers(-(1 << 63), (1 << 63) - 1) | st.floats(width=32, allow_nan=False)
NODES = st.builds(
    Node,
    NAMES,
    st.lists(NAMES, max_size=3).map(tuple),
    st.lists(NAMES, max_size=3).map(tuple),
    st.lists(st.tuples(NAMES, NUMBERS), max_size=3).map(tuple),
    NAMES,
)
ARRAYS = st.tuples(
    st.sampled_from(["float32", "uint8", "int8", "int32", "int64"]), st.lists(st.integers(0, 4), max_size=3)
).map(lambda drawn: np.arange(np.prod(drawn[1], dtype=int), dtype=drawn[0]).reshape(drawn[1]))


def written(graph: Graph) -> bytes:
    return write_model(graph, [("x", "float32")], [("y", "float32")], [("", 17)]).data


@given(st.lists(NODES, max_size=4), st.dictionaries(NAMES, ARRAYS, max_size=4))
def test_what_is_written_is_read_back(nodes: list[Node], arrays: dict[str, np.ndarray]) -> None:
    graph = read_graph(written(Graph(tuple(nodes), tuple(constant(name, a) for name, a in arrays.items()))))
    assert graph.nodes == tuple(nodes)
    assert list(graph.constant) == list(arrays)
    for name, array in arrays.items():
        found = graph.constant[name].array()
        assert (found.dtype, found.shape) == (array.dtype, array.shape)
        assert np.array_equal(found, array)


SMALL = written(
    Graph(
        (Node("Add", ("x", "w"), ("sum",)), Node("Softmax", ("sum",), ("y",), (("axis", -1),))),
        (constant("w", np.array([1, 2, 3], np.float32)),),
    )
)


def test_onnxruntime_reads_what_is_written() -> None:
    session = onnxruntime.InferenceSession(SMALL, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": np.zeros((1, 3), np.float32)})
    assert np.allclose(found, np.exp([1, 2, 3]) / np.exp([1, 2, 3]).sum())


def test_large_constants_stand_apart_and_are_not_copied() -> None:
    array = np.arange(1 << 16, dtype=np.float32)
    model = write_model(Graph((), (constant("w", array),)), [], [], [("", 17)])
    assert len(model.data) < 200
    (apart,) = model.apart
    assert np.shares_memory(apart.array(), array)
    with pytest.raises(NotOnnx):
        read_graph(model.data).constant["w"].array()


@given(st.binary(max_size=60))
def test_any_bytes_are_a_graph_or_not_onnx(data: bytes) -> None:
    try:
        read_graph(data)
    except NotOnnx:
        return


@given(st.integers(0, len(SMALL) - 1), st.integers(0, 255))
def test_any_changed_byte_gives_a_graph_or_not_onnx(place: int, byte: int) -> None:
    changed = bytearray(SMALL)
    changed[place] = byte
    try:
        for item in read_graph(bytes(changed)).constants:
            item.array()
    except NotOnnx:
        return


@pytest.mark.parametrize("length", range(1, len(SMALL)))
def test_a_file_that_is_cut_short_is_not_onnx(length: int) -> None:
    with pytest.raises(NotOnnx):
        read_graph(SMALL[:length])


def test_a_number_without_end_is_not_onnx() -> None:
    with pytest.raises(NotOnnx, match="ten bytes"):
        read_graph(b"\xff" * 40)
