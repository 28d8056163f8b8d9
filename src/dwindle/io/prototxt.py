"""The layers of a Caffe network that have weights, out of its prototxt: names and shapes, in order.

A reader of protobuf's text format, as far as Caffe's networks use it, that follows the number of channels
and the
size of images through the layers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dwindle.errors import CheckpointError

MAX_BYTES = 1 << 24
MAX_DEPTH = 32

_TOKEN = re.compile(
    r"""\s+|\#[^\n]*|(?P<mark>[{}:;,])|"(?P<text>[^"\n]*)"|'(?P<other>[^'\n]*)'|(?P<word>[^\s{}:;,#"']+)"""
)
Message = dict[str, list["str | Message"]]
"""The values of each field, in order."""


@dataclass(frozen=True)
class Layer:
    """A layer with weights.

    Attributes:
        name: its name.
        shape: of the weights: (out, in / groups, height, width), or (out, in) where it is fully connected.
    """

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class _Blob:
    channels: int
    height: int
    width: int


def read(path: Path) -> list[Layer]:
    """The convolutions and fully connected layers of a network, in the order of the file.

    Raises:
        CheckpointError: if the file is no prototxt, or the shape of a layer does not follow from it.
        OSError: if it cannot be opened.
    """
    if path.stat().st_size > MAX_BYTES:
        raise CheckpointError(f"{path}: expected a prototxt of at most {MAX_BYTES} bytes, got more")
    try:
        network = _message(_tokens(path.read_text("utf-8")), 0)
        return list(_layers(network))
    except (ValueError, IndexError, ArithmeticError) as error:
        raise CheckpointError(f"{path}: expected a prototxt of a network: {error}") from error


def _layers(network: Message) -> Iterator[Layer]:
    blobs = _inputs(network)
    for layer in [*_messages(network, "layer"), *_messages(network, "layers")]:
        name, kind = _text(layer, "name"), _text(layer, "type").replace("_", "").lower()
        bottoms = [str(bottom) for bottom in layer.get("bottom", [])]
        unknown = [bottom for bottom in bottoms if bottom not in blobs]
        if kind in ("convolution", "innerproduct") and (unknown or len(bottoms) != 1):
            raise ValueError(f"layer {name!r}: expected one input of a known size")
        if unknown or not bottoms:
            continue
        source = blobs[bottoms[0]]
        made = source
        if kind == "convolution":
            parameter = _one(layer, "convolution_param")
            out, group = _number(parameter, "num_output"), _number(parameter, "group", 1)
            size = _sides(parameter, "kernel_size", "kernel", None)
            if source.channels % group:
                raise ValueError(
                    f"layer {name!r}: expected channels in {group} groups, got {source.channels}"
                )
            yield Layer(name, (out, source.channels // group, *size))
            made = _Blob(out, *_slid(parameter, source, size, round_up=False))
        elif kind == "innerproduct":
            out = _number(_one(layer, "inner_product_param"), "num_output")
            yield Layer(name, (out, source.channels * source.height * source.width))
            made = _Blob(out, 1, 1)
        elif kind == "pooling":
            parameter = _one(layer, "pooling_param")
            if _text(parameter, "global_pooling", "false") == "true":
                made = _Blob(source.channels, 1, 1)
            else:
                size = _sides(parameter, "kernel_size", "kernel", None)
                made = _Blob(source.channels, *_slid(parameter, source, size, round_up=True))
        elif kind == "concat":
            made = _Blob(sum(blobs[bottom].channels for bottom in bottoms), source.height, source.width)
        for top in layer.get("top", []):
            blobs[str(top)] = made


def _inputs(network: Message) -> dict[str, _Blob]:
    """Channels and size of what the network is fed with."""
    names = [str(name) for name in network.get("input", [])]
    sizes = [_ranged("input_dim", str(size), 1) for size in network.get("input_dim", [])]
    for shape in _messages(network, "input_shape"):
        sizes += [_ranged("dim", str(size), 1) for size in shape.get("dim", [])]
    return {
        name: _Blob(*sizes[4 * i + 1 : 4 * i + 4]) for i, name in enumerate(names) if len(sizes) >= 4 * i + 4
    }


def _slid(parameter: Message, source: _Blob, size: tuple[int, int], *, round_up: bool) -> tuple[int, int]:
    """Size of what a window of `size` gives when it slides over an image."""
    strides, pads = _sides(parameter, "stride", "stride", 1), _sides(parameter, "pad", "pad", 0)
    found = []
    for side, window, stride, pad in zip((source.height, source.width), size, strides, pads, strict=True):
        steps = (side + 2 * pad - window) / stride
        found.append((math.ceil(steps) if round_up else math.floor(steps)) + 1)
    return found[0], found[1]


def _sides(parameter: Message, both: str, each: str, default: int | None) -> tuple[int, int]:
    """Height and width: one number for both, or `each`_h and `each`_w."""
    least = 0 if each == "pad" else 1
    if f"{each}_h" in parameter:
        return _number(parameter, f"{each}_h", least=least), _number(parameter, f"{each}_w", least=least)
    numbers = [_ranged(both, str(number), least) for number in parameter.get(both, [])]
    if not numbers:
        if default is None:
            raise ValueError(f"expected {both}")
        numbers = [default]
    return numbers[0], numbers[-1]


def _messages(message: Message, field: str) -> list[Message]:
    return [value for value in message.get(field, []) if isinstance(value, dict)]


def _one(message: Message, field: str) -> Message:
    found = _messages(message, field)
    if len(found) != 1:
        raise ValueError(f"expected one {field}, got {len(found)}")
    return found[0]


def _text(message: Message, field: str, default: str | None = None) -> str:
    found = message.get(field, [] if default is None else [default])
    if len(found) != 1 or not isinstance(found[0], str):
        raise ValueError(f"expected one {field}")
    return found[0]


def _number(message: Message, field: str, default: int | None = None, least: int = 1) -> int:
    return _ranged(field, _text(message, field, None if default is None else str(default)), least)


def _ranged(field: str, text: str, least: int) -> int:
    if not re.fullmatch(r"\+?\d{1,10}", text) or not least <= int(text) < 1 << 31:
        raise ValueError(f"expected {field} of {least} or more, got {text[:20]}")
    return int(text)


def _tokens(text: str) -> Iterator[str]:
    """Marks, words, and strings behind a quote that tells them from words."""
    at = 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise ValueError(f"expected a word or a string, got {text[at : at + 20]!r}")
        at = found.end()
        if found["mark"] or found["word"]:
            yield found["mark"] or found["word"]
        elif found["text"] is not None or found["other"] is not None:
            yield '"' + (found["text"] or found["other"] or "")


def _message(tokens: Iterator[str], depth: int) -> Message:
    """Fields up to the end, or to the brace that closes them."""
    if depth > MAX_DEPTH:
        raise ValueError(f"expected at most {MAX_DEPTH} messages within each other")
    fields: Message = {}
    for name in tokens:
        if name == "}" and depth:
            return fields
        if name in (";", ","):
            continue
        if name in "{}:" or name.startswith('"'):
            raise ValueError(f"expected the name of a field, got {name!r}")
        mark = next(tokens, "")
        value = next(tokens, "") if mark == ":" else mark
        if value == "{":
            fields.setdefault(name, []).append(_message(tokens, depth + 1))
        elif mark == ":" and value not in ("", "}", ":"):
            fields.setdefault(name, []).append(value.removeprefix('"'))
        else:
            raise ValueError(f"{name}: expected a value, got {value!r}")
    if depth:
        raise ValueError("expected a closing brace, got the end")
    return fields
