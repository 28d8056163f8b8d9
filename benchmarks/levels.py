"""Uniformly quantized weights: our coders against NNCodec's, the same levels, one thread.

    python -m benchmarks.levels MODEL.safetensors --peer PYTHON --json results/levels.json

Every tensor of two or more dimensions, rounded to multiples of a step that is a share of its standard
deviation. PYTHON is an interpreter that has nncodec 2.1.3 (ISO/IEC 15938-17's reference software), whose
arithmetic coder is given the levels tensor by tensor, without dependent quantization and with its context
parameters optimized (`param_opt`). Process time, the best of ROUNDS for ours, in the first of which memory is
new to the process, and one run of seconds for NNCodec. Ours counts blocks and code tables, NNCodec's its
streams: no headers.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from dwindle.code import blocks, entropy
from dwindle.code.plan import Coding, Plan, book, choose, count
from dwindle.io import read_checkpoint
from dwindle.records import Shared, index_dtype, to_storage

ROUNDS = 9
STEPS = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8)

PEER = """
import json, sys, time
import numpy as np
from nncodec.extensions import deepCABAC
from nncodec.nnc_core.hdsp.hdsp_tool import HDSP_OPTS_OFF
levels = [v for v in np.load(sys.argv[1]).values()]
coded, start = [], time.process_time()
for tensor in levels:
    encoder = deepCABAC.Encoder()
    encoder.initCtxModels(11, 1)
    encoder.encodeLayer(tensor, 0, 0, 0, 0, 0, np.zeros(tensor.shape[0], np.int32), *HDSP_OPTS_OFF(), 0, 0)
    coded.append(bytearray(encoder.finish().tobytes()))
middle = time.process_time()
for stream, tensor in zip(coded, levels):
    decoder = deepCABAC.Decoder()
    decoder.setStream(stream)
    decoder.initCtxModels(11)
    out = np.zeros_like(tensor)
    decoder.decodeLayer(out, 0, 0, 0, 0, *HDSP_OPTS_OFF(), 0, 0)
    assert np.array_equal(out, tensor)
end = time.process_time()
print(json.dumps({"bytes": sum(map(len, coded)), "encode_s": middle - start, "decode_s": end - middle}))
"""


def weights(model: Path) -> list[np.ndarray]:
    """The tensors of a checkpoint that are cut into levels."""
    records = read_checkpoint(model).records.values()
    return [to_storage(r) for r in records if r.dtype == "float32" and len(r.shape) > 1]


def quantized(weights: list[np.ndarray], step: float) -> list[np.ndarray]:
    return [np.round(w / (step * max(float(w.std()), 1e-12))).astype(np.int32) for w in weights]


def as_record(levels: np.ndarray) -> Shared:
    """Levels as a codebook of all from the lowest to the highest, 0 among them."""
    low, high = min(int(levels.min()), 0), max(int(levels.max()), 0)
    codebook = np.arange(low, high + 1).astype("<f4")
    indices = (levels.reshape(-1) - low).astype(index_dtype(len(codebook)))
    return Shared("float32", levels.shape, codebook, indices)


def ours(records: list[Shared], coder: str) -> dict[str, float]:
    """Bytes and best process seconds of one of our coders."""
    into = out = 1e9
    for _ in range(ROUNDS):
        start, coded = time.process_time(), []
        for record in records:
            context = Plan("context", len(record.codebook))
            plan = context if coder == "context" else choose(Coding(coder), count(record))[0]
            numbers = range(blocks.block_count(plan, len(record.indices)))
            values = book(record)
            coded.append(
                (plan, [blocks.encode(record.indices, plan, values, record.shape, n) for n in numbers])
            )
        into = min(into, time.process_time() - start)
        start = time.process_time()
        for record, (plan, parts) in zip(records, coded, strict=True):
            place, values = np.empty_like(record.indices), book(record)
            for number, part in enumerate(parts):
                chosen = place[blocks.block_range(plan, len(place), number)]
                blocks.decode(memoryview(part), plan, values, record.shape, number, chosen)
            assert np.array_equal(place, record.indices)
        out = min(out, time.process_time() - start)
    size = sum(len(part) for _, parts in coded for part in parts)
    size += sum(len(code.table) for plan, _ in coded for code in (plan.index_code, plan.gap_code) if code)
    return {"bytes": size, "encode_s": round(into, 3), "decode_s": round(out, 3)}


def theirs(levels: list[np.ndarray], peer: Path) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "levels.npz"
        np.savez(path, **{str(i): array for i, array in enumerate(levels)})
        done = subprocess.run([peer, "-c", PEER, path], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--peer", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    arrays = weights(options.model)
    report: dict[str, Any] = {
        "command": "python -m benchmarks.levels MODEL.safetensors --peer PYTHON --json results/levels.json",
        "model": options.model.name,
        "weights": sum(array.size for array in arrays),
        "tensors": len(arrays),
        "threads": 1,
        "steps": {},
    }
    for step in STEPS:
        levels = quantized(arrays, step)
        shared = [as_record(array) for array in levels]
        bound = sum(entropy.entropy_bytes(entropy.counts(r.indices, len(r.codebook))) for r in shared)
        peer = theirs(levels, options.peer)
        row: dict[str, Any] = {"zero_order_entropy": round(bound), "nncodec 2.1.3": peer}
        for coder in ("context", "rans", "huffman"):
            found = ours(shared, coder)
            row[coder] = found | {
                "against_entropy_percent": round(100 * (found["bytes"] / bound - 1), 2),
                "against_nncodec_percent": round(100 * (found["bytes"] / peer["bytes"] - 1), 2),
                "encode_times_nncodec": round(peer["encode_s"] / found["encode_s"], 1),
                "decode_times_nncodec": round(peer["decode_s"] / found["decode_s"], 1),
            }
        report["steps"][step] = row
        print(step, json.dumps(row))
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
