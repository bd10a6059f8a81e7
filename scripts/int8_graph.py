"""Writes the graph in which the default embedder computes: python -m scripts.int8_graph MODEL.onnx

`all-MiniLM-L6-v2` is stored with int8 weights that are multiplied out when they are used. That saves space but no time: the
products are those of float32. The graph that is written here multiplies int8 by int8 into int32, exactly, and scales the
sums. The weights stay where they are, bit by bit; activations are rounded to 8 bits, each tensor with its own scale (dynamic
quantisation, https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html).

The first token (`[CLS]`) of these models is up to five times as large inside as any other, and would take that share of the
precision from them. So it goes through all but one of the products with scales of its own: of the error (1 - cosine to
float32), 0.0053 becomes 0.0011, at no cost in time.

The graph holds fused operators already and needs no optimisation when it is opened. Its tensors are not in it: `tensors.json`
says where they lie in the model's own file. `openbook.inference.embedder` brings the two together.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from openbook.inference.embedder import DATA, GRAPHS, INT8_TEST, INT8_TEST_SIZE, TENSORS

if TYPE_CHECKING:
    from numpy.typing import NDArray

LAYERS, HEADS, EPSILON = 6, 12, 1e-12
PREFIX = "inner."  # of the names of Hugging Face's implementation
MICROSOFT = "com.microsoft"
# The part of the ONNX format that is used here (https://onnx.ai/onnx/repo-docs/IR.html): for each message the number, type
# and name of its fields; `*` means repeated. The `onnx` package has the whole format and takes 31 MB.
FORMAT = {
    "Model": "1 int64 ir_version, 7 Graph graph, 8 *Opset opset_import",
    "Opset": "1 string domain, 2 int64 version",
    "Graph": "1 *Node node, 2 string name, 5 *Tensor initializer, 11 *Value input, 12 *Value output",
    "Node": "1 *string input, 2 *string output, 4 string op_type, 5 *Attribute attribute, 7 string domain",
    "Attribute": "1 string name, 2 float f, 3 int64 i, 20 int32 type",
    "Tensor": "1 *int64 dims, 2 int32 data_type, 8 string name, 9 bytes raw_data, 13 *Entry external_data, 14 int32 data_location",
    "Entry": "1 string key, 2 string value",
    "Value": "1 string name, 2 Type type",
    "Type": "1 TensorType tensor_type",
    "TensorType": "1 int32 elem_type",
}
DATA_TYPES = {"float32": 1, "uint8": 2, "int8": 3, "int32": 6, "int64": 7}
FLOAT, INT = 1, 2  # types of attributes
EXTERNAL = 1  # place of a tensor


@functools.cache
def message_class() -> Any:
    """The class of a whole ONNX file."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file: Any = descriptor_pb2.FileDescriptorProto(name="part_of_onnx.proto", package="part_of_onnx", syntax="proto3")
    kinds: Any = descriptor_pb2.FieldDescriptorProto
    for message, fields in FORMAT.items():
        described = file.message_type.add(name=message)
        for number, kind, name in (field.split() for field in fields.split(", ")):
            field = described.field.add(name=name, number=int(number))
            field.label = kinds.LABEL_REPEATED if kind.startswith("*") else kinds.LABEL_OPTIONAL
            kind = kind.removeprefix("*")
            if kind in FORMAT:
                field.type, field.type_name = kinds.TYPE_MESSAGE, f".part_of_onnx.{kind}"
            else:
                field.type = kinds.Type.Value(f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("part_of_onnx.Model"))


class Bert:
    """The tensors in the model's own file, and where they lie."""

    def __init__(self, data: bytes) -> None:
        graph = message_class().FromString(data).graph
        self._data = data
        self._tensors = {tensor.name: tensor for tensor in graph.initializer}
        self._producers = {output: node for node in graph.node for output in node.output}
        self._added = {name: node for node in graph.node if node.op_type == "Add" for name in node.input}
        self.places: dict[str, dict[str, Any]] = {}

    def linear(self, name: str) -> tuple[str, str, str]:
        """The tensors of `x @ (weight * scale) + bias`: weight int8 [I, O], scale float32 [1, O], bias float32 [O]."""
        bias = f"{PREFIX}{name}.bias"
        product = self._producers[self._added[bias].input[0]]
        scaled = self._producers[product.input[1]]
        return self._producers[scaled.input[0]].input[0], scaled.input[1], bias

    def place(self, name: str, tensors: Sequence[str], shape: Sequence[int] = ()) -> NDArray[Any]:
        """Note where these tensors lie, which side by side are the tensor `name` of the graph, and give it."""
        parts = [self._tensors[each] for each in tensors]
        (dtype,) = {d for part in parts for d, code in DATA_TYPES.items() if code == part.data_type}
        shape = shape or list(parts[0].dims)
        self.places[name] = {
            "dtype": dtype,
            "shape": list(shape),
            "offsets": [self._data.index(part.raw_data) for part in parts],
        }
        return np.concatenate([np.frombuffer(part.raw_data, dtype).reshape(shape) for part in parts], axis=-1)


class Writer:
    """Builds a graph, node by node. A name stands for the array that a node gives or that is brought to the graph."""

    def __init__(self) -> None:
        self._model = message_class()(ir_version=8)
        for domain, version in (("", 17), (MICROSOFT, 1)):
            self._model.opset_import.add(domain=domain, version=version)
        self._graph = self._model.graph
        self._graph.name = "openbook"
        self._names = set[str]()

    def finished(self) -> bytes:
        data: bytes = self._model.SerializeToString(deterministic=True)
        return data

    def input(self, name: str, dtype: str) -> str:
        self._graph.input.add(name=name).type.tensor_type.elem_type = DATA_TYPES[dtype]
        return name

    def output(self, value: str, name: str, dtype: str) -> None:
        self._graph.node.add(op_type="Identity", input=[value], output=[name])
        self._graph.output.add(name=name).type.tensor_type.elem_type = DATA_TYPES[dtype]

    def tensor(self, name: str, array: NDArray[Any], *, inside: bool = False) -> str:
        """A tensor that whoever opens the graph brings, or that lies `inside` it."""
        if name in self._names:
            return name
        self._names.add(name)
        tensor = self._graph.initializer.add(name=name, data_type=DATA_TYPES[str(array.dtype)], dims=array.shape)
        if inside:
            tensor.raw_data = array.tobytes()
            return name
        tensor.data_location = EXTERNAL
        for key, value in (("location", "apart"), ("offset", "0"), ("length", str(array.nbytes))):
            tensor.external_data.add(key=key, value=value)
        return name

    def numbers(self, number: int) -> str:
        return self.tensor(str(number), np.array([number], np.int64), inside=True)

    def op(self, op: str, *inputs: str, outputs: int = 1, domain: str = "", **attributes: int | float) -> str:
        """The name of the first output; further ones are called `<name>.1`, `<name>.2`."""
        name = f"{len(self._graph.node)}.{op}"
        names = [name, *(f"{name}.{i}" for i in range(1, outputs))]
        node = self._graph.node.add(op_type=op, input=inputs, output=names, domain=domain)
        for key, value in attributes.items():
            if isinstance(value, float):
                node.attribute.add(name=key, f=value, type=FLOAT)
            else:
                node.attribute.add(name=key, i=value, type=INT)
        return name


def graph_of(bert: Bert, *, signed: bool) -> bytes:
    """The graph from `input_ids` int64 [1, T] to `hidden` float32 [1, T, D].

    `signed` says how weights are brought to it, as int8 or as uint8 shifted by 128. The values are the same, bit by bit; which
    is faster, and whether int8 is right at all, depends on the processor (`embedder.int8_is_exact`).
    """
    writer = Writer()
    op, numbers = writer.op, writer.numbers

    def stored(name: str, *tensors: str, shape: Sequence[int] = ()) -> str:
        return writer.tensor(name, bert.place(name, tensors or [PREFIX + name], shape))

    def norm(hidden: str, residual: str, name: str) -> str:
        # Fused into SkipLayerNormalization, the addition and the norm take six times as long (onnxruntime 1.32).
        weight, bias = (stored(f"{name}.{part}") for part in ("weight", "bias"))
        return op("LayerNormalization", op("Add", hidden, residual), weight, bias, axis=-1, epsilon=EPSILON)

    def embeddings() -> str:
        """Of one text: all positions are attended to and all tokens are of type 0. Only its own rows are scaled."""
        words, positions = "embeddings.word_embeddings.weight", "embeddings.position_embeddings.weight"
        place = bert.place("positions.q", [f"{PREFIX}{positions}_q"])
        for name, tensor in (("scale", f"{positions}_scale"), ("types", "embeddings.token_type_embeddings.weight")):
            bert.place(f"positions.{name}", [PREFIX + tensor])
        ids = writer.input("input_ids", "int64")
        table, scale = (stored(f"{words}_{part}") for part in ("q", "scale"))
        word = op("Mul", op("Cast", op("Gather", table, ids), to=DATA_TYPES["float32"]), op("Gather", scale, ids))
        count = op("Shape", ids, start=1, end=2)
        rows = op("Slice", writer.tensor("positions", place.astype(np.float32)), numbers(0), count, numbers(0))
        return norm(word, rows, "embeddings.LayerNorm")

    def linear(inputs: Sequence[str], name: str, parts: tuple[str, ...] = ("",)) -> list[str]:
        """Each input, rounded to 8 bits, times the weights of all `parts` side by side."""
        weights, scales, biases = zip(*(bert.linear(name + part) for part in parts), strict=True)
        zero = writer.tensor("weight.zero", np.array(0, np.int8) if signed else np.array(128, np.uint8), inside=True)
        weight = bert.place(f"{name}.weight", weights)
        product = writer.tensor(f"{name}.weight", weight if signed else weight.view("uint8"))
        scale, bias = (
            stored(f"{name}.scale", *scales, shape=[weight.shape[1] // len(parts)]),
            stored(f"{name}.bias", *biases),
        )
        found = []
        for each in inputs:
            value = op("DynamicQuantizeLinear", each, outputs=3)
            operands = (value, product, f"{value}.1", scale, f"{value}.2", zero, bias)
            found.append(op("MatMulIntegerToFloat", *operands, domain=MICROSOFT))
        return found

    def first_and_others(hidden: str) -> list[str]:
        first = op("Slice", hidden, numbers(0), numbers(1), numbers(1))
        return [first, op("Slice", hidden, numbers(1), numbers(1 << 40), numbers(1))]

    hidden = embeddings()
    for layer in range(LAYERS):
        name = f"encoder.layer.{layer}."
        qkv = linear(first_and_others(hidden), f"{name}attention.self.", ("query", "key", "value"))
        split = op("Split", op("Concat", *qkv, axis=1), outputs=3, axis=-1)
        heads = (split, f"{split}.1", f"{split}.2")
        attended = op("MultiHeadAttention", *heads, domain=MICROSOFT, num_heads=HEADS)
        (attended,) = linear([attended], f"{name}attention.output.dense")
        hidden = norm(attended, hidden, f"{name}attention.output.LayerNorm")
        inner = linear(first_and_others(hidden), f"{name}intermediate.dense")
        outer = linear([op("Gelu", each, domain=MICROSOFT) for each in inner], f"{name}output.dense")
        hidden = norm(op("Concat", *outer, axis=1), hidden, f"{name}output.LayerNorm")
    writer.output(hidden, "hidden", "float32")
    return writer.finished()


def probe() -> bytes:
    """A product of [N, S] and [S, S], S being `INT8_TEST_SIZE`."""
    writer = Writer()
    weight = writer.tensor("weight", np.full((INT8_TEST_SIZE, INT8_TEST_SIZE), 127, np.int8), inside=True)
    writer.output(writer.op("MatMulInteger", writer.input("rows", "uint8"), weight), "sums", "int32")
    return writer.finished()


def files_for(model: bytes) -> dict[str, bytes]:
    """The files in `DATA`, by their names."""
    bert = Bert(model)
    graphs = {name: graph_of(bert, signed=signed) for signed, name in GRAPHS.items()}
    lines = [f'"{name}": {json.dumps(place)}' for name, place in bert.places.items()]
    return {**graphs, INT8_TEST: probe(), TENSORS: ("{\n" + ",\n".join(lines) + "\n}\n").encode()}


if __name__ == "__main__":
    for name, data in files_for(Path(sys.argv[1]).read_bytes()).items():
        (DATA / name).write_bytes(data)
