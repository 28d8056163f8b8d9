"""Commands on `.dwz` files: inspect, verify, decompress."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dwindle.cli import show
from dwindle.cli.output import Force, Json, print_json, print_table, say, size
from dwindle.errors import shown

Dwz = Annotated[Path, typer.Argument(metavar="FILE.dwz", help="The compressed file.")]

Trust = Annotated[
    bool,
    typer.Option(
        "--trust", help="Decode the file however large its tensors; refused over 256 MiB and 4,096 times it."
    ),
]


def _most(trust: bool) -> str | None:
    return None if trust else "auto"


def inspect(
    file: Dwz,
    compare: Annotated[
        bool, typer.Option("--compare", help="What every other coding would make of the same tensors.")
    ] = False,
    trust: Trust = False,
    as_json: Json = False,
) -> None:
    """Show where every byte of a file goes, with the entropy bound beside each stream.

    Example: dwindle inspect model.dwz
    """
    from dwindle.code.compare import compare as compare_codings
    from dwindle.file import Archive, ledger
    from dwindle.records import Shared

    with Archive(file, max_bytes=_most(trust)) as archive:
        book = ledger(archive)
        table = None
        if compare:
            found = {name: archive.record(name) for name in archive}
            table = compare_codings({n: record for n, record in found.items() if isinstance(record, Shared)})
    if as_json:
        extra = {"comparison": table.to_json()} if table else {}
        about = {"file": str(file), "bytes": book.file_size, "metadata": archive.metadata}
        print_json({**about, **book.to_json(), **extra})
        return
    show.ledger(f"{file}: {size(book.file_size)} bytes, {book.rate:.2f}x", book)
    if table:
        show.comparison(table)


def verify(
    file: Dwz,
    against: Annotated[
        Path | None, typer.Option("--against", help="The checkpoint it was made from.", show_default=False)
    ] = None,
    key: Annotated[
        str | None, typer.Option("--key", help="Where the state dict is in that checkpoint.")
    ] = None,
    trust: Trust = False,
    as_json: Json = False,
) -> None:
    """Decode every byte of a file and check it; with --against, measure how far it is from the original.

    Example: dwindle verify model.dwz --against model.safetensors
    """
    from dwindle.file import Archive

    with Archive(file, max_bytes=_most(trust)) as archive:
        archive.check()
        result: dict[str, object] = {"file": str(file), "tensors": len(archive), "ok": True}
        rows = []
        if against is not None:
            from dwindle.io import read_checkpoint
            from dwindle.verify import distances

            found = distances(archive, read_checkpoint(against, key=key).records, against)
            result["against"] = str(against)
            result["distances"] = [vars(distance) for distance in found]
            rows = [
                (d.name, "exact", "", "", "")
                if d.exact
                else (
                    d.name,
                    f"{d.changed / d.elements:.1%} changed",
                    f"{d.largest:.3g}",
                    f"{d.rms:.3g}",
                    "" if d.snr_db is None else f"{d.snr_db:.1f}",
                )
                for d in found
            ]
    if as_json:
        print_json(result)
        return
    if rows:
        print_table("", ("tensor", "bits", "largest", "rms", "SNR dB"), rows, left=2)
    typer.echo(f"{file}: {len(archive)} tensors, every checksum right, every tensor decodes")


def decompress(
    file: Dwz,
    output: Annotated[
        Path, typer.Option("-o", "--output", help=".safetensors, .npz or .pt", show_default=False)
    ],
    force: Force = False,
    trust: Trust = False,
    as_json: Json = False,
) -> None:
    """Write the tensors of a file as an ordinary checkpoint.

    Example: dwindle decompress model.dwz -o model.safetensors
    """
    from dwindle import atomic
    from dwindle.file import Archive
    from dwindle.io import write_checkpoint

    atomic.check_output(output, force=force, inputs=(file,))
    with Archive(file, max_bytes=_most(trust)) as archive:
        found = {name: archive.record(name) for name in archive}
        write_checkpoint(output, found, archive.metadata, force=force)
    dropped = [] if output.suffix.lower() == ".safetensors" else list(archive.metadata)
    result = {"file": str(file), "output": str(output), "tensors": len(found), "bytes": output.stat().st_size}
    if as_json:
        print_json(result | {"metadata_left_out": dropped})
        return
    say(f"{output}: {len(found)} tensors, {size(output.stat().st_size)} bytes")
    if dropped:
        say(f"metadata left out, since {output.suffix} has no place for it: {', '.join(map(shown, dropped))}")
