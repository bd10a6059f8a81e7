"""A BERT encoder with int8 weights, rewritten so that it also computes in int8.

A file whose weights are stored as int8 and multiplied out when they are used saves space but no time: the products are
those of float32. `int8_model` gives a graph that multiplies int8 by int8 into int32, exactly, and scales the sums. The
weights are the file's own, bit by bit; activations are rounded to 8 bits, each tensor with its own scale (dynamic
quantisation, https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html).

The first token (`[CLS]`) of these models is up to five times as large inside as any other, and would take that share
of the precision from them. So it goes through all but one of the products with scales of its own: of the error (1 -
cosine to float32), 0.0053 becomes 0.0011, at no cost in time.

The graph holds fused operators already and needs no optimisation when it is opened.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

COMPUTATION = "int8 bert 1"
"""What the rewritten graph computes. Changes whenever its vectors do."""

_MICROSOFT = "com.microsoft"
# What an export of BERT consists of. Anything else in the graph (RoBERTa's CumSum, for one) is another model.
_MASKS_AND_SHAPES = {"Cast", "Concat", "Expand", "Gather", "GatherND", "Range", "Reshape", "Shape", "Slice"}
_MASKS_AND_SHAPES |= {"Squeeze", "Transpose", "Unsqueeze", "And", "GreaterOrEqual", "IsNaN", "Max", "Where"}
_ARITHMETIC = {"Add", "Div", "Erf", "LayerNormalization", "MatMul", "Mul", "Softmax"}

# The part of the ONNX format that is used here (https://onnx.ai/onnx/repo-docs/IR.html): for each message the number, type
# and name of its fields; `*` means repeated. The `onnx` package has the whole format and takes 31 MB.
_FORMAT = {
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
_DATA_TYPES = {"float32": 1, "uint8": 2, "int8": 3, "int32": 6, "int64": 7}
_FLOAT, _INT = 1, 2  # types of attributes
_EXTERNAL = 1  # place of a tensor
_APART_BYTES = 1 << 16
_LINEARS = (
    *(f"attention.self.{part}" for part in ("query", "key", "value")),
    *("attention.output.dense", "intermediate.dense", "output.dense"),
)


class NotThisBert(Exception):
    """A graph that is not known to be BERT with int8 weights: it has to run as it is."""


@functools.cache
def message_class() -> Any:
    """The class of a whole ONNX file."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file: Any = descriptor_pb2.FileDescriptorProto(name="part_of_onnx.proto", package="part_of_onnx", syntax="proto3")
    kinds: Any = descriptor_pb2.FieldDescriptorProto
    for message, fields in _FORMAT.items():
        described = file.message_type.add(name=message)
        for number, kind, name in (field.split() for field in fields.split(", ")):
            field = described.field.add(name=name, number=int(number))
            field.label = kinds.LABEL_REPEATED if kind.startswith("*") else kinds.LABEL_OPTIONAL
            kind = kind.removeprefix("*")
            if kind in _FORMAT:
                field.type, field.type_name = kinds.TYPE_MESSAGE, f".part_of_onnx.{kind}"
            else:
                field.type = kinds.Type.Value(f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("part_of_onnx.Model"))


class Bert:
    """The BERT encoder in an ONNX file, by the names of Hugging Face's implementation. Raises NotThisBert."""

    def __init__(self, data: bytes) -> None:
        from google.protobuf.message import DecodeError

        try:
            model = message_class().FromString(data)
        except DecodeError as error:
            raise NotThisBert("it is cut short or not an ONNX file") from error
        self._tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        self._producer = {output: node for node in model.graph.node for output in node.output}
        self._consumers: dict[str, list[Any]] = {}
        for node in model.graph.node:
            for name in node.input:
                self._consumers.setdefault(name, []).append(node)
        ending = "embeddings.word_embeddings.weight_q"
        prefix = next((name[: -len(ending)] for name in self._tensors if name.endswith(ending)), None)
        if prefix is None:
            raise NotThisBert("it has no int8 word embeddings")
        self._prefix = prefix
        ops = Counter(node.op_type for node in model.graph.node)
        self.layers = ops["Softmax"]
        expected = {"MatMul": 8 * self.layers, "Erf": self.layers, "LayerNormalization": 2 * self.layers + 1}
        known = set(ops) <= _MASKS_AND_SHAPES | _ARITHMETIC
        if self.layers < 1 or not known or any(ops[op] != count for op, count in expected.items()):
            raise NotThisBert("its operators are not those of BERT")
        norms = [node for node in model.graph.node if node.op_type == "LayerNormalization"]
        epsilons = {next((a.f for a in node.attribute if a.name == "epsilon"), 1e-5) for node in norms}
        width, head = len(self.array("embeddings.LayerNorm.weight")), self._head_size()
        if len(epsilons) != 1 or width % head:
            raise NotThisBert("its layers differ, or its heads do not fill its width")
        self.epsilon, self.heads = epsilons.pop(), width // head
        for layer in range(self.layers):
            for part in _LINEARS:
                self.linear(f"encoder.layer.{layer}.{part}")

    def array(self, name: str) -> NDArray[Any]:
        return self._array(self._prefix + name)

    def linear(self, name: str) -> tuple[NDArray[np.int8], NDArray[np.float32], NDArray[np.float32]]:
        """`x @ (weight * scale) + bias`: weight int8 [I, O], scale float32 [O], bias float32 [O]."""
        product = self._only(f"{self._prefix}{name}.bias", "Add").input[0]
        scaled = self._made(self._made(product).input[1])
        weight = self._array(self._made(scaled.input[0]).input[0])
        scale = self._array(scaled.input[1]).reshape(-1)
        if weight.dtype != "int8" or weight.shape[1:] != scale.shape:
            raise NotThisBert(f"the weight of {name} is not int8 with a scale for each column")
        return weight, scale, self.array(f"{name}.bias")

    def _array(self, name: str) -> NDArray[Any]:
        import numpy as np

        tensor = self._tensors.get(name)
        dtype = next((d for d, code in _DATA_TYPES.items() if tensor is not None and code == tensor.data_type), None)
        if tensor is None or dtype is None:
            raise NotThisBert(f"the tensor {name!r} is missing or of another type")
        try:
            return np.frombuffer(tensor.raw_data, np.dtype(dtype).newbyteorder("<")).reshape(tensor.dims)
        except ValueError as error:
            raise NotThisBert(f"the tensor {name!r} does not have the bytes that its shape needs") from error

    def _made(self, name: str) -> Any:
        """The node that gives `name`."""
        node = self._producer.get(name)
        if node is None or (len(node.input) < 2 and node.op_type != "Cast"):
            raise NotThisBert(f"nothing that is known gives {name!r}")
        return node

    def _only(self, name: str, op: str) -> Any:
        """The one node that takes `name`."""
        nodes = self._consumers.get(name, [])
        if [node.op_type for node in nodes] != [op]:
            raise NotThisBert(f"{name!r} does not go into one {op}")
        return nodes[0]

    def _head_size(self) -> int:
        """The last number of the shape that queries are cut into."""
        added = self._only(f"{self._prefix}encoder.layer.0.attention.self.query.bias", "Add").output[0]
        shape = self._made(self._only(added, "Reshape").input[1])
        size = self._array(shape.input[-1]).reshape(-1)
        if shape.op_type != "Concat" or not len(size) or size[-1] < 1:
            raise NotThisBert("the shape of its heads is not stated")
        return int(size[-1])


@dataclass(frozen=True, slots=True)
class Model:
    """An ONNX file, less the large tensors. Whoever opens it brings them, so that they are never copied."""

    data: bytes
    apart: dict[str, NDArray[Any]]


class Writer:
    """Builds a model, node by node. A name stands for the array that a node gives or that was put into the file."""

    def __init__(self) -> None:
        self._model = message_class()(ir_version=8)
        for domain, version in (("", 17), (_MICROSOFT, 1)):
            self._model.opset_import.add(domain=domain, version=version)
        self._graph = self._model.graph
        self._graph.name = "openbook"
        self._names = set[str]()
        self._apart: dict[str, NDArray[Any]] = {}

    def finished(self) -> Model:
        return Model(self._model.SerializeToString(), self._apart)

    def input(self, name: str, dtype: str) -> str:
        self._graph.input.add(name=name).type.tensor_type.elem_type = _DATA_TYPES[dtype]
        return name

    def output(self, value: str, name: str, dtype: str) -> None:
        self._graph.node.add(op_type="Identity", input=[value], output=[name])
        self._graph.output.add(name=name).type.tensor_type.elem_type = _DATA_TYPES[dtype]

    def tensor(self, name: str, array: NDArray[Any]) -> str:
        if name in self._names:
            return name
        self._names.add(name)
        tensor = self._graph.initializer.add(name=name, data_type=_DATA_TYPES[str(array.dtype)], dims=array.shape)
        if array.nbytes < _APART_BYTES:
            tensor.raw_data = array.tobytes()
        else:
            self._apart[name], tensor.data_location = array, _EXTERNAL
            for key, value in (("location", "apart"), ("offset", "0"), ("length", str(array.nbytes))):
                tensor.external_data.add(key=key, value=value)
        return name

    def numbers(self, number: int) -> str:
        import numpy as np

        return self.tensor(str(number), np.array([number], np.int64))

    def op(self, op: str, *inputs: str, outputs: int = 1, domain: str = "", **attributes: int | float) -> str:
        """The name of the first output; further ones are called `<name>.1`, `<name>.2`."""
        name = f"{len(self._graph.node)}.{op}"
        names = [name, *(f"{name}.{i}" for i in range(1, outputs))]
        node = self._graph.node.add(op_type=op, input=inputs, output=names, domain=domain)
        for key, value in attributes.items():
            if isinstance(value, float):
                node.attribute.add(name=key, f=value, type=_FLOAT)
            else:
                node.attribute.add(name=key, i=value, type=_INT)
        return name


def int8_model(bert: Bert, *, signed: bool = True) -> Model:
    """An ONNX file from `input_ids` int64 [1, T] to `hidden` float32 [1, T, D]. Raises NotThisBert.

    `signed` says how the weights are stored, as int8 or as uint8 shifted by 128. The values are the same, bit by bit;
    which is faster, and whether int8 is right at all, depends on the processor (`int8_is_exact`).
    """
    import numpy as np

    writer = Writer()
    op, numbers = writer.op, writer.numbers

    def norm(hidden: str, residual: str, name: str) -> str:
        # Fused into SkipLayerNormalization, the addition and the norm take six times as long (onnxruntime 1.32).
        weight, bias = (writer.tensor(f"{name}.{part}", bert.array(f"{name}.{part}")) for part in ("weight", "bias"))
        return op("LayerNormalization", op("Add", hidden, residual), weight, bias, axis=-1, epsilon=bert.epsilon)

    def embeddings() -> str:
        """Of one text: all positions are attended to and all tokens are of type 0. Only its own rows are scaled."""
        words, positions = "embeddings.word_embeddings.weight", "embeddings.position_embeddings.weight"
        place = bert.array(f"{positions}_q") * bert.array(f"{positions}_scale")
        place = place + bert.array("embeddings.token_type_embeddings.weight")[0]
        ids = writer.input("input_ids", "int64")
        table, scale = (writer.tensor(f"{words}_{part}", bert.array(f"{words}_{part}")) for part in ("q", "scale"))
        word = op("Mul", op("Cast", op("Gather", table, ids), to=_DATA_TYPES["float32"]), op("Gather", scale, ids))
        count = op("Shape", ids, start=1, end=2)
        rows = op("Slice", writer.tensor("positions", place), numbers(0), count, numbers(0))
        return norm(word, rows, "embeddings.LayerNorm")

    def linear(inputs: Sequence[str], name: str, parts: tuple[str, ...] = ("",)) -> list[str]:
        """Each input, rounded to 8 bits, times the weights of all `parts` side by side."""
        linears = [bert.linear(name + part) for part in parts]
        weight, scale, bias = (np.concatenate(each, axis=-1) for each in zip(*linears, strict=True))
        zero = writer.tensor("weight.zero", np.array(0, np.int8) if signed else np.array(128, np.uint8))
        stored = writer.tensor(name, weight if signed else weight.view("uint8") ^ 0x80)
        scales, biases = writer.tensor(f"{name}.scale", scale), writer.tensor(f"{name}.bias", bias)
        found = []
        for each in inputs:
            value = op("DynamicQuantizeLinear", each, outputs=3)
            operands = (value, stored, f"{value}.1", scales, f"{value}.2", zero, biases)
            found.append(op("MatMulIntegerToFloat", *operands, domain=_MICROSOFT))
        return found

    def first_and_others(hidden: str) -> list[str]:
        first = op("Slice", hidden, numbers(0), numbers(1), numbers(1))
        return [first, op("Slice", hidden, numbers(1), numbers(1 << 40), numbers(1))]

    hidden = embeddings()
    for layer in range(bert.layers):
        name = f"encoder.layer.{layer}."
        qkv = linear(first_and_others(hidden), f"{name}attention.self.", ("query", "key", "value"))
        split = op("Split", op("Concat", *qkv, axis=1), outputs=3, axis=-1)
        heads = (split, f"{split}.1", f"{split}.2")
        attended = op("MultiHeadAttention", *heads, domain=_MICROSOFT, num_heads=bert.heads)
        (attended,) = linear([attended], f"{name}attention.output.dense")
        hidden = norm(attended, hidden, f"{name}attention.output.LayerNorm")
        inner = linear(first_and_others(hidden), f"{name}intermediate.dense")
        outer = linear([op("Gelu", each, domain=_MICROSOFT) for each in inner], f"{name}output.dense")
        hidden = norm(op("Concat", *outer, axis=1), hidden, f"{name}output.LayerNorm")
    writer.output(hidden, "hidden", "float32")
    return writer.finished()


_PROBE = 64  # a product of [N, 64] and [64, 64]


def probe_model() -> Model:
    import numpy as np

    writer = Writer()
    weight = writer.tensor("weight", np.full((_PROBE, _PROBE), 127, np.int8))
    writer.output(writer.op("MatMulInteger", writer.input("rows", "uint8"), weight), "sums", "int32")
    return writer.finished()


def int8_is_exact(session: Any) -> bool:
    """Whether this processor multiplies uint8 by int8 without saturating, by a session of `probe_model`.

    Without VNNI, x86 adds pairs of products in 16 bits, where 2 x 255 x 127 does not fit. Weights in uint8 take another
    way there, which is exact.
    """
    import numpy as np

    rows = np.full((4, _PROBE), 255, np.uint8)
    expected = 255 * 127 * _PROBE
    return all(bool((session.run(None, {"rows": rows[:n]})[0] == expected).all()) for n in (1, 4))
