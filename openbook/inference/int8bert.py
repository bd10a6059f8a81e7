"""A BERT encoder with int8 weights, rewritten so that it also computes in int8.

A file whose weights are stored as int8 and multiplied out when they are used saves space and no time: the products are
those of float32. `int8_model` gives a graph that multiplies int8 by int8 into int32, exactly, and scales the sums. The
weights are the file's own, bit by bit; activations are rounded to 8 bits, each tensor with its own scale (dynamic
quantisation, https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html).

The first token (`[CLS]`) of these models is up to five times as large inside as any other, and would take that share
of the precision from them. So it goes through all but one of the products with scales of its own: of the error (1 -
cosine to float32), 0.0053 becomes 0.0011, at no cost in time.

The graph holds fused operators already and needs no optimisation when it is opened.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from openbook.inference.onnxfile import (
    Attribute,
    Buffer,
    Constant,
    Graph,
    Model,
    Node,
    NotOnnx,
    constant,
    read_graph,
    write_model,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

COMPUTATION = "int8 bert 1"
"""What the rewritten graph computes. Changes whenever its vectors do."""

_MICROSOFT = "com.microsoft"
_OPSETS = (("", 17), (_MICROSOFT, 1))
# What an export of BERT consists of; anything else in the graph (RoBERTa's CumSum, for one) is another model.
_MASKS_AND_SHAPES = {"Cast", "Concat", "Expand", "Gather", "GatherND", "Range", "Reshape", "Shape", "Slice"}
_MASKS_AND_SHAPES |= {"Squeeze", "Transpose", "Unsqueeze", "And", "GreaterOrEqual", "IsNaN", "Max", "Where"}
_ARITHMETIC = {"Add", "Div", "Erf", "LayerNormalization", "MatMul", "Mul", "Softmax"}
_NOT_FOUND = (NotOnnx, KeyError, IndexError, ValueError)
_LINEARS = (
    *(f"attention.self.{part}" for part in ("query", "key", "value")),
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
)


class NotThisBert(Exception):
    """A graph that is not known to be BERT with int8 weights: it has to run as it is."""


@dataclass(frozen=True, slots=True)
class Linear:
    """`x @ (weight * scale) + bias`: int8 [I, O], float32 [O], float32 [O]."""

    weight: NDArray[np.int8]
    scale: NDArray[np.float32]
    bias: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Bert:
    """The parts of the model by the names of Hugging Face's implementation, less `prefix`."""

    graph: Graph
    prefix: str
    layers: int
    heads: int
    epsilon: float

    def array(self, name: str) -> NDArray[Any]:
        return self.stored(name).array()

    def stored(self, name: str) -> Constant:
        return self.graph.constant[self.prefix + name]

    def linear(self, name: str) -> Linear:
        product = _only(self.graph, f"{self.prefix}{name}.bias", "Add").inputs[0]
        scaled = self.graph.producer[self.graph.producer[product].inputs[1]]
        weight = self.graph.constant[self.graph.producer[scaled.inputs[0]].inputs[0]].array()
        found = Linear(weight, self.graph.constant[scaled.inputs[1]].array().reshape(-1), self.array(f"{name}.bias"))
        if found.weight.dtype != "int8" or found.weight.shape[1:] != found.scale.shape:
            raise NotThisBert(f"the weight of {name} is not int8 with a scale for each column")
        return found


def recognised(model: Buffer) -> Bert:
    """The BERT encoder in an ONNX file, as views of `model`. Raises NotThisBert."""
    try:
        bert = _bert(read_graph(model))
        for layer in range(bert.layers):
            for part in _LINEARS:
                bert.linear(f"encoder.layer.{layer}.{part}")
    except _NOT_FOUND as error:
        raise NotThisBert(str(error)) from error
    return bert


def int8_model(bert: Bert, *, signed: bool = True) -> Model:
    """`input_ids` int64 [1, T] to `hidden` float32 [1, T, D]. Raises NotThisBert if a part is missing or misshapen.

    `signed` says how the weights are stored, as int8 or as uint8 shifted by 128. The values are the same, bit by bit;
    which is faster, and whether int8 is right at all, depends on the processor (`int8_is_exact`).
    """
    try:
        return _Writer(bert, signed).model()
    except _NOT_FOUND as error:
        raise NotThisBert(f"a part of it is missing or has another shape: {error}") from error


# --- recognising ------------------------------------------------------------------------------------------------------


def _bert(graph: Graph) -> Bert:
    ending = "embeddings.word_embeddings.weight_q"
    prefix = next((name[: -len(ending)] for name in graph.constant if name.endswith(ending)), None)
    if prefix is None:
        raise NotThisBert("it has no int8 word embeddings")
    ops = Counter(node.op for node in graph.nodes)
    layers = ops["Softmax"]
    expected = {"MatMul": 8 * layers, "Erf": layers, "LayerNormalization": 2 * layers + 1}
    if layers < 1 or not set(ops) <= _MASKS_AND_SHAPES | _ARITHMETIC or any(ops[op] != n for op, n in expected.items()):
        raise NotThisBert("its operators are not those of BERT")
    norms = [node for node in graph.nodes if node.op == "LayerNormalization"]
    epsilons = {dict(node.attributes).get("epsilon", 1e-5) for node in norms}
    width = graph.constant[f"{prefix}embeddings.LayerNorm.weight"].shape[0]
    if len(epsilons) != 1 or width % (size := _head_size(graph, prefix)):
        raise NotThisBert("its layers differ, or its heads do not fill its width")
    return Bert(graph, prefix, layers, width // size, float(epsilons.pop()))


def _head_size(graph: Graph, prefix: str) -> int:
    """The last number of the shape that queries are cut into."""
    added = _only(graph, f"{prefix}encoder.layer.0.attention.self.query.bias", "Add").outputs[0]
    shape = graph.producer[_only(graph, added, "Reshape").inputs[1]]
    size = int(graph.constant[shape.inputs[-1]].array().reshape(-1)[-1])
    if shape.op != "Concat" or size < 1:
        raise NotThisBert("the shape of its heads is not stated")
    return size


def _only(graph: Graph, name: str, op: str) -> Node:
    """The one node that takes `name`."""
    (node,) = graph.consumers[name]
    if node.op != op:
        raise NotThisBert(f"{name} goes into {node.op}")
    return node


# --- writing ----------------------------------------------------------------------------------------------------------


class _Writer:
    def __init__(self, bert: Bert, signed: bool) -> None:
        self._bert, self._signed = bert, signed
        self._nodes: list[Node] = []
        self._constants: dict[str, Constant] = {}

    def model(self) -> Model:
        hidden = self._embeddings()
        for layer in range(self._bert.layers):
            hidden = self._layer(hidden, f"encoder.layer.{layer}.")
        self._nodes.append(Node("Identity", (hidden,), ("hidden",)))
        graph = Graph(tuple(self._nodes), tuple(self._constants.values()))
        return write_model(graph, [("input_ids", "int64")], [("hidden", "float32")], _OPSETS)

    def _embeddings(self) -> str:
        """Of one text: all positions are attended to and all tokens are of type 0. Only its own rows are scaled."""
        bert, words, positions = (
            self._bert,
            "embeddings.word_embeddings.weight",
            "embeddings.position_embeddings.weight",
        )
        place = bert.array(f"{positions}_q") * bert.array(f"{positions}_scale")
        place = place + bert.array("embeddings.token_type_embeddings.weight")[0]
        # Kept as views of the file: they are half of it.
        table, scale = (self._keep(bert.stored(f"{words}_{part}")) for part in ("q", "scale"))
        word = self._op("Cast", self._op("Gather", table, "input_ids"), to=1)
        word = self._op("Mul", word, self._op("Gather", scale, "input_ids"))
        count = self._op("Shape", "input_ids", start=1, end=2)
        zero = self._numbers(0)
        place_rows = self._op("Slice", self._array("positions", place), zero, count, zero)
        return self._norm(word, place_rows, "embeddings.LayerNorm")

    def _layer(self, hidden: str, name: str) -> str:
        attended = self._linear(self._quantised(self._attention(hidden, name)), f"{name}attention.output.dense")
        hidden = self._norm(attended, hidden, f"{name}attention.output.LayerNorm")
        forward = self._op("Concat", *(self._feed_forward(part, name) for part in self._parts(hidden)), axis=1)
        return self._norm(forward, hidden, f"{name}output.LayerNorm")

    def _parts(self, hidden: str) -> tuple[str, str]:
        """The first token and all others."""
        first = self._op("Slice", hidden, self._numbers(0), self._numbers(1), self._numbers(1))
        return first, self._op("Slice", hidden, self._numbers(1), self._numbers(1 << 40), self._numbers(1))

    def _attention(self, hidden: str, name: str) -> str:
        import numpy as np

        three = [self._bert.linear(f"{name}attention.self.{part}") for part in ("query", "key", "value")]
        joined = Linear(
            np.concatenate([part.weight for part in three], axis=1),
            np.concatenate([part.scale for part in three]),
            np.concatenate([part.bias for part in three]),
        )
        rows = [self._linear(self._quantised(part), f"{name}qkv", joined) for part in self._parts(hidden)]
        split = self._op("Split", self._op("Concat", *rows, axis=1), outputs=3, axis=-1)
        inputs = (split, f"{split}.1", f"{split}.2")
        return self._op("MultiHeadAttention", *inputs, domain=_MICROSOFT, num_heads=self._bert.heads)

    def _feed_forward(self, hidden: str, name: str) -> str:
        inner = self._linear(self._quantised(hidden), f"{name}intermediate.dense")
        return self._linear(self._quantised(self._op("Gelu", inner, domain=_MICROSOFT)), f"{name}output.dense")

    def _linear(self, quantised: tuple[str, str, str], name: str, joined: Linear | None = None) -> str:
        part, (value, step, zero) = joined or self._bert.linear(name), quantised
        weight = self._array(name, part.weight if self._signed else part.weight.view("uint8") ^ 0x80)
        scale, bias = self._array(f"{name}.scale", part.scale), self._array(f"{name}.bias", part.bias)
        inputs = (value, weight, step, scale, zero, self._weight_zero(), bias)
        return self._op("MatMulIntegerToFloat", *inputs, domain=_MICROSOFT)

    def _norm(self, hidden: str, residual: str, name: str) -> str:
        """An addition and a norm: fused into SkipLayerNormalization they take six times as long (onnxruntime 1.32)."""
        weight, bias = (
            self._array(f"{name}.{part}", self._bert.array(f"{name}.{part}")) for part in ("weight", "bias")
        )
        total = self._op("Add", hidden, residual)
        return self._op("LayerNormalization", total, weight, bias, axis=-1, epsilon=self._bert.epsilon)

    def _quantised(self, hidden: str) -> tuple[str, str, str]:
        """The names of value, scale and zero point."""
        name = self._op("DynamicQuantizeLinear", hidden, outputs=3)
        return name, f"{name}.1", f"{name}.2"

    def _weight_zero(self) -> str:
        import numpy as np

        return self._array("weight.zero", np.array(0, np.int8) if self._signed else np.array(128, np.uint8))

    def _numbers(self, number: int) -> str:
        import numpy as np

        return self._array(str(number), np.array([number], np.int64))

    def _array(self, name: str, array: NDArray[Any]) -> str:
        return name if name in self._constants else self._keep(constant(name, array))

    def _keep(self, item: Constant) -> str:
        self._constants[item.name] = item
        return item.name

    def _op(self, op: str, *inputs: str, outputs: int = 1, domain: str = "", **attributes: Attribute) -> str:
        name = f"{len(self._nodes)}.{op}"
        names = (name, *(f"{name}.{i}" for i in range(1, outputs)))
        self._nodes.append(Node(op, inputs, names, tuple(attributes.items()), domain))
        return name


# --- the processor ----------------------------------------------------------------------------------------------------


def int8_is_exact(session: Any) -> bool:
    """Whether this processor multiplies uint8 by int8 without saturating, by a session of `probe_model`.

    Without VNNI, x86 adds pairs of products in 16 bits, where 2 x 255 x 127 does not fit; uint8 weights take another
    way there, which is exact.
    """
    import numpy as np

    rows = np.full((4, _PROBE), 255, np.uint8)
    expected = 255 * 127 * _PROBE
    return all(bool((session.run(None, {"rows": rows[:n]})[0] == expected).all()) for n in (1, 4))


_PROBE = 64  # a product of [N, 64] and [64, 64]


def probe_model() -> Model:
    import numpy as np

    weight = constant("weight", np.full((_PROBE, _PROBE), 127, np.int8))
    graph = Graph((Node("MatMulInteger", ("rows", "weight"), ("sums",)),), (weight,))
    return write_model(graph, [("rows", "uint8")], [("sums", "int32")], _OPSETS)
