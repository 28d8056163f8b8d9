"""The bytes of a header, coded by what headers usually say.

The model (`kernels.text`) first reads `PRIMER`, which is part of the format, so that it knows the usual
names of
tensors before the first byte. Coded: a byte 1, then the code. Where that is not shorter: a byte 0, then the
bytes as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from dwindle.code.cursor import prefixed
from dwindle.errors import CorruptError
from dwindle.kernels import text as kernels

PLAIN, CODED = 0, 1
"""The first byte."""


def encode(data: bytes) -> bytes:
    """Code the bytes of a header."""
    text = np.frombuffer(PRIMER + data, np.uint8).copy()
    out = np.empty(len(data) + 8, np.uint8)
    used = np.empty(len(data), np.uint32)
    size = int(kernels.run(text, np.uint64(len(PRIMER)), out, False, used))
    return bytes([CODED]) + out[:size].tobytes() if size < len(data) else bytes([PLAIN]) + data


def decode(data: memoryview, size: int) -> bytes:
    """Read what `encode` made of `size` bytes.

    Raises:
        CorruptError: if it made no such bytes.
    """
    return _decode(data, size)[0]


def spans(data: memoryview, runs: Sequence[int]) -> list[int]:
    """How many coded bytes runs of the decoded ones take, rounded so that they add up to all of them.

    Args:
        data: what `encode` made.
        runs: sizes of runs of decoded bytes, one after the other, which add up to all.
    """
    _, used = _decode(data, sum(runs))
    ends = [int(used[end - 1]) if end else 0 for end in accumulate(runs)]
    if ends:
        ends[-1] = len(data)
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]


def _decode(data: memoryview, size: int) -> tuple[bytes, NDArray[np.uint32]]:
    if len(data) < 1 or data[0] not in (PLAIN, CODED):
        raise CorruptError("expected text that is plain or coded")
    body = np.array(data[1:], np.uint8)
    if data[0] == PLAIN:
        if len(body) != size:
            raise CorruptError(f"expected {size} bytes of text, got {len(body)}")
        return body.tobytes(), np.arange(1, size + 1, dtype=np.uint32)
    text = np.concatenate([np.frombuffer(PRIMER, np.uint8), np.zeros(size, np.uint8)])
    used = np.empty(size, np.uint32)
    seen = int(kernels.run(text, np.uint64(len(PRIMER)), body, True, used))
    if len(body) > seen or (len(body) and body[-1] == 0):
        raise CorruptError(f"expected a code of at most {seen} bytes, no zero at its end, got {len(body)}")
    return text[len(PRIMER) :].tobytes(), used


NAMES = """
features.0.weight features.0.bias features.3.weight classifier.1.weight classifier.6.bias
conv1.weight conv2.weight conv1.bias fc1.weight fc1.bias fc2.weight fc3.bias fc.weight fc.bias
bn1.weight bn1.bias bn1.running_mean bn1.running_var bn1.num_batches_tracked
layer1.0.conv1.weight layer1.0.bn1.weight layer1.0.bn1.bias layer1.0.bn1.running_mean layer1.0.bn1.running_var
layer2.0.downsample.0.weight layer3.1.bn2.num_batches_tracked layer4.2.bn3.weight
model.layers.0.self_attn.q_proj.weight model.layers.0.self_attn.k_proj.weight
model.layers.0.self_attn.v_proj.weight model.layers.1.self_attn.o_proj.weight
model.layers.1.mlp.gate_proj.weight model.layers.1.mlp.up_proj.weight model.layers.2.mlp.down_proj.weight
model.layers.2.input_layernorm.weight model.layers.2.post_attention_layernorm.weight
model.embed_tokens.weight model.norm.weight lm_head.weight
transformer.h.0.attn.c_attn.weight transformer.h.0.ln_1.bias
bert.encoder.layer.0.attention.self.query.weight encoder.layer.0.attention.self.key.bias
encoder.layer.1.attention.self.value.weight encoder.layer.1.attention.output.dense.bias
encoder.layer.2.attention.output.LayerNorm.weight encoder.layer.2.intermediate.dense.weight
encoder.layer.3.output.LayerNorm.bias encoder.layer.3.output.dense.weight
embeddings.word_embeddings.weight embeddings.position_embeddings.weight
embeddings.token_type_embeddings.weight embeddings.LayerNorm.weight embeddings.position_ids
pooler.dense.weight blocks.0.0.depthwise_conv.weight blocks.1._expand_conv.weight
_blocks.2._depthwise_conv.weight _blocks.2._bn1.bias _blocks.3._project_conv.weight _conv_stem.weight
_bn0.running_var _conv_head.weight _fc.bias se.fc1.weight stem.conv.weight head.weight
rnn.weight_ih_l0 lstm.weight_hh_l0 gru.bias_ih_l0 decoder.linear.weight in_proj_weight out_proj.bias
fire2/conv1x1_1.weight fire2/squeeze1x1.weight backbone.block1.norm1.weight 0.weight 2.weight net.0.0.bias
format pt
"""

PRIMER = b"".join(prefixed(name.encode()) for name in NAMES.split())
"""Every name behind its length, as in a header."""
