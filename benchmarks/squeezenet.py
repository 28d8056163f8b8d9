"""The authors' compressed SqueezeNet as a `.dwz`: every codebook, bias and index kept, part by part.

    python -m benchmarks.squeezenet DATA/songhan --json results/squeezenet.json

DATA/songhan holds `compressed_SqueezeNet.net` and `SqueezeNet_deploy.prototxt` as released by their authors.
"""

from __future__ import annotations

import argparse
import json
import lzma
import tempfile
import time
from pathlib import Path

from dwindle.code import entropy
from dwindle.code.plan import CODERS, Coding
from dwindle.file import Archive, ledger, write
from dwindle.io import read_checkpoint, write_checkpoint
from dwindle.records import Shared, same


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    original = options.folder / "compressed_SqueezeNet.net"
    records = read_checkpoint(original, layers=options.folder / "SqueezeNet_deploy.prototxt").records
    shared = [record for record in records.values() if isinstance(record, Shared)]
    counts = [entropy.counts(record.indices, 256) for record in shared]
    report = {
        "command": "python -m benchmarks.squeezenet DATA/songhan --json results/squeezenet.json",
        "original_bytes": original.stat().st_size,
        "xz_9_bytes": len(lzma.compress(original.read_bytes(), preset=9 | lzma.PRESET_EXTREME)),
        "zero_order_entropy_of_the_index_maps": round(sum(map(entropy.entropy_bytes, counts))),
        "coders": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        for coder in CODERS:
            path = Path(folder) / f"{coder}.dwz"
            started = time.process_time()
            write(path, records, coding=Coding(coder))
            written = time.process_time() - started
            with Archive(path) as archive:
                assert all(same(archive.record(name), record) for name, record in records.items())
                write_checkpoint(Path(folder) / "back.net", archive.records, force=True)
                book = ledger(archive)
            assert (Path(folder) / "back.net").read_bytes() == original.read_bytes()
            parts = {part: book.size(part=part) for part in dict.fromkeys(line.part for line in book.lines)}
            report["coders"][coder] = {
                "bytes": book.file_size,
                "seconds_to_write_and_verify": round(written, 2),
                "parts": parts,
            }
    text = json.dumps(report, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
