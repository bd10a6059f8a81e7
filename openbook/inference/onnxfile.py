"""The part of the ONNX file format that rewriting a graph needs: https://onnx.ai/onnx/repo-docs/IR.html.

Reads nodes and constants of a model and writes a model from nodes and constants, in the protobuf encoding
(https://protobuf.dev/programming-guides/encoding/). The `onnx` package does this too; it is 31 MB on the disk.
Large constants are never copied: they stay views of the bytes that were read and are handed over beside the model.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from numpy.typing import NDArray

Attribute: TypeAlias = int | float
Buffer: TypeAlias = bytes | memoryview

_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5  # wire types
_DATA_TYPES = {"float32": 1, "uint8": 2, "int8": 3, "int32": 6, "int64": 7}
_TYPE_NAMES = {code: name for name, code in _DATA_TYPES.items()}
_ATTRIBUTE_FLOAT, _ATTRIBUTE_INT = 1, 2
_EXTERNAL = 1
_APART_BYTES = 1 << 16


class NotOnnx(ValueError):
    """Bytes that are no ONNX model, or use more of the format than this module knows."""


@dataclass(frozen=True, slots=True)
class Node:
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: tuple[tuple[str, Attribute], ...] = ()
    domain: str = ""


@dataclass(frozen=True, slots=True)
class Constant:
    """`data` is in row-major order, little-endian. `type` is empty for one that is not written here."""

    name: str
    type: str
    shape: tuple[int, ...]
    data: Buffer

    def array(self) -> NDArray[Any]:
        """A read-only view. Raises NotOnnx."""
        import numpy as np

        if not self.type:
            raise NotOnnx(f"the constant {self.name!r} has a type or a place that is not supported")
        try:
            return np.frombuffer(self.data, dtype=np.dtype(self.type).newbyteorder("<")).reshape(self.shape)
        except ValueError as error:
            raise NotOnnx(f"the constant {self.name!r} has not the bytes that its shape needs") from error


@dataclass(frozen=True)
class Graph:
    nodes: tuple[Node, ...]
    constants: tuple[Constant, ...]

    @cached_property
    def constant(self) -> dict[str, Constant]:
        return {constant.name: constant for constant in self.constants}

    @cached_property
    def producer(self) -> dict[str, Node]:
        return {output: node for node in self.nodes for output in node.outputs}

    @cached_property
    def consumers(self) -> dict[str, list[Node]]:
        found: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in node.inputs:
                found.setdefault(name, []).append(node)
        return found


# --- reading ----------------------------------------------------------------------------------------------------------


def read_graph(data: Buffer) -> Graph:
    """Raises NotOnnx."""
    try:
        body = next(value for number, value in _fields(memoryview(data)) if number == 7 and not isinstance(value, int))
        nodes, constants = [], []
        for number, value in _fields(body):
            if number == 1:
                nodes.append(_node(_message(value)))
            elif number == 5:
                constants.append(_constant(_message(value)))
    except StopIteration as error:
        raise NotOnnx("there is no graph in it") from error
    except (IndexError, struct.error, UnicodeDecodeError) as error:
        raise NotOnnx("it is cut short or not an ONNX file") from error
    return Graph(tuple(nodes), tuple(constants))


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    at, end = 0, len(data)
    while at < end:
        key, at = _read_varint(data, at)
        kind = key & 7
        if kind == _VARINT:
            value, at = _read_varint(data, at)
            yield key >> 3, value
            continue
        if kind == _BYTES:
            length, at = _read_varint(data, at)
        elif kind in (_EIGHT_BYTES, _FOUR_BYTES):
            length = 8 if kind == _EIGHT_BYTES else 4
        else:
            raise NotOnnx(f"there is a field of the unknown wire type {kind}")
        if length > end - at:
            raise NotOnnx("it is cut short")
        yield key >> 3, data[at : at + length]
        at += length


def _read_varint(data: memoryview, at: int) -> tuple[int, int]:
    byte = data[at]
    if byte < 128:
        return byte, at + 1
    value, shift = byte & 127, 7
    while shift < 70:
        at += 1
        byte = data[at]
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at + 1
        shift += 7
    raise NotOnnx("there is a number of more than ten bytes")


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise NotOnnx("there is a number where a message should be")
    return value


def _text(value: int | memoryview) -> str:
    return bytes(_message(value)).decode()


def _node(data: memoryview) -> Node:
    inputs, outputs, attributes, op, domain = [], [], [], "", ""
    for number, value in _fields(data):
        if number == 1:
            inputs.append(_text(value))
        elif number == 2:
            outputs.append(_text(value))
        elif number == 4:
            op = _text(value)
        elif number == 5:
            attributes += _attribute(_message(value))
        elif number == 7:
            domain = _text(value)
    return Node(op, tuple(inputs), tuple(outputs), tuple(attributes), domain)


def _attribute(data: memoryview) -> list[tuple[str, Attribute]]:
    """The attribute, or nothing for one of another type."""
    name, found = "", list[Attribute]()
    for number, value in _fields(data):
        if number == 1:
            name = _text(value)
        elif number == 2 and not isinstance(value, int):
            found.append(float(struct.unpack("<f", value)[0]))
        elif number == 3 and isinstance(value, int):
            found.append(value if value < 1 << 63 else value - (1 << 64))
    return [(name, value) for value in found]


def _constant(data: memoryview) -> Constant:
    name, type_name, shape, raw = "", "", list[int](), None
    for number, value in _fields(data):
        if number == 1:
            # A list of numbers may come as one field each or packed into one.
            shape += [value] if isinstance(value, int) else _packed(value)
        elif number == 2 and isinstance(value, int):
            type_name = _TYPE_NAMES.get(value, "")
        elif number == 8:
            name = _text(value)
        elif number == 9:
            raw = _message(value)
    return Constant(name, "" if raw is None else type_name, tuple(shape), b"" if raw is None else raw)


def _packed(data: memoryview) -> list[int]:
    values, at = [], 0
    while at < len(data):
        value, at = _read_varint(data, at)
        values.append(value)
    return values


# --- writing ----------------------------------------------------------------------------------------------------------


def constant(name: str, array: NDArray[Any]) -> Constant:
    import numpy as np

    whole = np.ascontiguousarray(array)
    return Constant(name, str(whole.dtype), array.shape, whole.reshape(-1).view(np.uint8).data)


@dataclass(frozen=True, slots=True)
class Model:
    """A model as a file, less the constants that stand `apart`: whoever opens it brings them."""

    data: bytes
    apart: tuple[Constant, ...]


def write_model(
    graph: Graph,
    inputs: Sequence[tuple[str, str]],
    outputs: Sequence[tuple[str, str]],
    opsets: Iterable[tuple[str, int]],
) -> Model:
    """A model whose inputs and outputs are (name, type); their shapes are left open."""
    apart = tuple(item for item in graph.constants if len(item.data) >= _APART_BYTES)
    body = b"".join(
        [
            *(_field(1, _written_node(node)) for node in graph.nodes),
            _field(2, b"openbook"),
            *(_field(5, _written_constant(item)) for item in graph.constants),
            *(_field(11, _typed(*value)) for value in inputs),
            *(_field(12, _typed(*value)) for value in outputs),
        ]
    )
    imports = b"".join(_field(8, _field(1, domain.encode()) + _number(2, version)) for domain, version in opsets)
    return Model(_number(1, 8) + imports + _field(7, body), apart)


def _varint(value: int) -> bytes:
    written = bytearray()
    while value > 127:
        written.append(value & 127 | 128)
        value >>= 7
    written.append(value)
    return bytes(written)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3 | _VARINT) + _varint(value if value >= 0 else value + (1 << 64))


def _field(field: int, content: Buffer) -> bytes:
    return _varint(field << 3 | _BYTES) + _varint(len(content)) + bytes(content)


def _written_node(node: Node) -> bytes:
    return b"".join(
        [
            *(_field(1, name.encode()) for name in node.inputs),
            *(_field(2, name.encode()) for name in node.outputs),
            _field(4, node.op.encode()),
            *(_field(5, _written_attribute(*pair)) for pair in node.attributes),
            _field(7, node.domain.encode()),
        ]
    )


def _written_attribute(name: str, value: Attribute) -> bytes:
    if isinstance(value, float):
        content = _varint(2 << 3 | _FOUR_BYTES) + struct.pack("<f", value) + _number(20, _ATTRIBUTE_FLOAT)
    else:
        content = _number(3, value) + _number(20, _ATTRIBUTE_INT)
    return _field(1, name.encode()) + content


def _written_constant(item: Constant) -> bytes:
    head = b"".join(_number(1, length) for length in item.shape)
    head += _number(2, _DATA_TYPES[item.type]) + _field(8, item.name.encode())
    if len(item.data) < _APART_BYTES:
        return head + _field(9, item.data)
    place = (("location", "apart"), ("offset", "0"), ("length", str(len(item.data))))
    entries = (_field(13, _field(1, key.encode()) + _field(2, value.encode())) for key, value in place)
    return head + b"".join(entries) + _number(14, _EXTERNAL)


def _typed(name: str, type_name: str) -> bytes:
    return _field(1, name.encode()) + _field(2, _field(1, _number(1, _DATA_TYPES[type_name])))
