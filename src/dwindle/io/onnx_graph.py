"""Every tensor of an ONNX model, by a name of its own: initializers and attributes, in subgraphs too."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto


class Place(NamedTuple):
    """A tensor of a model.

    Attributes:
        name: an initializer's own name behind those of the nodes its graph is inside of; for the value of a
            Constant, the name of its output. Other places may have the same.
        tensor: the message.
        attribute: whether it is an attribute of a node rather than an initializer.
    """

    name: str
    tensor: TensorProto
    attribute: bool


def walk(model: ModelProto) -> Iterator[Place]:
    """All tensors of a model, those of the graph itself first.

    Raises:
        ValueError: if a graph has two initializers of one name, or a name is not text.
    """
    yield from _graph(model.graph, "")
    for number, training in enumerate(model.training_info):
        yield from _graph(training.initialization, f"training_info.{number}.initialization.")
        yield from _graph(training.algorithm, f"training_info.{number}.algorithm.")
    for function in model.functions:
        prefix = f"{_text(function.domain)}.{_text(function.name)}."
        yield from _attributes(function.attribute_proto, prefix)
        yield from _nodes(function.node, prefix)


def _graph(graph: GraphProto, prefix: str) -> Iterator[Place]:
    seen: set[str] = set()
    for tensor in [*graph.initializer, *(sparse.values for sparse in graph.sparse_initializer)]:
        name = _text(tensor.name)
        if name in seen:
            raise ValueError(f"tensor {name!r}: expected one initializer of this name in a graph, got two")
        seen.add(name)
    for tensor in graph.initializer:
        yield Place(prefix + tensor.name, tensor, False)
    for sparse in graph.sparse_initializer:
        yield from _sparse(sparse, prefix + sparse.values.name, False)
    yield from _nodes(graph.node, prefix)


def _nodes(nodes: Iterable[NodeProto], prefix: str) -> Iterator[Place]:
    for number, node in enumerate(nodes):
        outputs = [_text(output) for output in node.output]
        if node.op_type == "Constant" and len(node.attribute) == 1 and outputs:
            value = node.attribute[0]
            if value.HasField("t"):
                yield Place(prefix + outputs[0], value.t, True)
                continue
        # Not every node has a name.
        name = _text(node.name) or (outputs[0] if outputs else "") or f"{_text(node.op_type)}_{number}"
        yield from _attributes(node.attribute, f"{prefix}{name}.")


def _attributes(attributes: Iterable[AttributeProto], prefix: str) -> Iterator[Place]:
    for attribute in attributes:
        name = prefix + _text(attribute.name)
        if attribute.HasField("t"):
            yield Place(name, attribute.t, True)
        for number, tensor in enumerate(attribute.tensors):
            yield Place(f"{name}.{number}", tensor, True)
        if attribute.HasField("sparse_tensor"):
            yield from _sparse(attribute.sparse_tensor, name, True)
        for number, sparse in enumerate(attribute.sparse_tensors):
            yield from _sparse(sparse, f"{name}.{number}", True)
        if attribute.HasField("g"):
            yield from _graph(attribute.g, f"{name}.")
        for number, graph in enumerate(attribute.graphs):
            yield from _graph(graph, f"{name}.{number}.")


def _sparse(sparse: SparseTensorProto, name: str, attribute: bool) -> Iterator[Place]:
    yield Place(name, sparse.values, attribute)
    yield Place(f"{name}.indices", sparse.indices, attribute)


def _text(name: str | bytes) -> str:
    """A name; protobuf gives one that is no UTF-8 as bytes."""
    if isinstance(name, bytes):
        raise ValueError(f"expected names in UTF-8, got {name[:40]!r}")
    return name
