"""A network's graph in ONNX's format: the few Protocol Buffers messages it takes, written without the `onnx` package.

That package would add 35 MB to every node for some forty lines of encoding; the tests let it check what is written here.
Constants are named and not contained («external data») where the runtime takes them as they lie in memory, which saves copying
all weights three times at every start; OpenVINO wants them contained.
Sources: onnx/onnx.proto (field numbers; IR version 8, operators of version 17), Protocol Buffers' wire format.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from router.classify.resize import Float32Array

_IR_VERSION = 8
_OPERATORS_VERSION = 17
#: TensorProto.DataType
_FLOAT = 1
#: TensorProto.DataLocation
_EXTERNAL = 1
#: AttributeProto.AttributeType
_ATTRIBUTE_FLOAT, _ATTRIBUTE_INT, _ATTRIBUTE_INTS = 1, 2, 7

Attribute = int | float | Sequence[int]


@dataclass(frozen=True, slots=True)
class Node:
    """One operator: values in, one value out."""

    operator: str
    inputs: tuple[str, ...]
    output: str
    attributes: Mapping[str, Attribute]


@dataclass(slots=True, kw_only=True)
class Graph:
    """Operators in the order they run, constants by name, and the values that go in and come out.

    A dimension is a number, or a name where any size will do.
    """

    name: str
    nodes: list[Node] = field(default_factory=list)
    constants: dict[str, Float32Array] = field(default_factory=dict)
    inputs: dict[str, tuple[int | str, ...]] = field(default_factory=dict)
    outputs: dict[str, tuple[int | str, ...]] = field(default_factory=dict)


def encode(graph: Graph, *, contained: bool = False) -> bytes:
    """The bytes of an ONNX model (ModelProto), without the values of its constants unless `contained`."""
    return b"".join(
        (
            _number(1, _IR_VERSION),
            _text(2, "dicom-ai-router"),
            *_message(7, _graph(graph, contained)),
            *_message(8, [_number(2, _OPERATORS_VERSION)]),
        )
    )


def _graph(graph: Graph, contained: bool) -> list[bytes]:
    parts: list[bytes] = []
    for node in graph.nodes:
        parts += _message(1, _node(node))
    parts.append(_text(2, graph.name))
    for name, values in graph.constants.items():
        parts += _message(5, _contained(name, values) if contained else _constant(name, values.shape))
    for number, described in ((11, graph.inputs), (12, graph.outputs)):
        for name, shape in described.items():
            parts += _message(number, [_text(1, name), *_message(2, _message(1, _tensor_type(shape)))])
    return parts


def _node(node: Node) -> list[bytes]:
    parts = [*(_text(1, name) for name in node.inputs), _text(2, node.output), _text(3, node.output)]
    parts.append(_text(4, node.operator))
    for name, value in node.attributes.items():
        parts += _message(5, [_text(1, name), *_attribute(value)])
    return parts


def _attribute(value: Attribute) -> list[bytes]:
    if isinstance(value, float):
        return [_key(2, 5), struct.pack("<f", value), _number(20, _ATTRIBUTE_FLOAT)]
    if isinstance(value, int):
        return [_number(3, value), _number(20, _ATTRIBUTE_INT)]
    return [*(_number(8, one) for one in value), _number(20, _ATTRIBUTE_INTS)]


def _constant(name: str, shape: Sequence[int]) -> list[bytes]:
    where = _message(13, [_text(1, "location"), _text(2, "memory")])
    return [*(_number(1, n) for n in shape), _number(2, _FLOAT), _text(8, name), *where, _number(14, _EXTERNAL)]


def _contained(name: str, values: Float32Array) -> list[bytes]:
    data = values.astype("<f4").tobytes()
    shape = [_number(1, n) for n in values.shape]
    return [*shape, _number(2, _FLOAT), _text(8, name), _key(9, 2), _varint(len(data)), data]


def _tensor_type(shape: Sequence[int | str]) -> list[bytes]:
    dimensions = [b"".join(_message(1, [_number(1, n) if isinstance(n, int) else _text(2, n)])) for n in shape]
    return [_number(1, _FLOAT), *_message(2, dimensions)]


def _message(number: int, parts: Sequence[bytes]) -> list[bytes]:
    return [_key(number, 2), _varint(sum(map(len, parts))), *parts]


def _text(number: int, text: str) -> bytes:
    data = text.encode()
    return _key(number, 2) + _varint(len(data)) + data


def _number(number: int, value: int) -> bytes:
    return _key(number, 0) + _varint(value)


def _key(number: int, wire_type: int) -> bytes:
    return _varint(number << 3 | wire_type)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
