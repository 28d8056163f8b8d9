"""Commands on `.dwz` files: inspect, verify, decompress."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dwindle.cli import show
from dwindle.cli.output import Force, Json, print_json, print_table, say, size
from dwindle.errors import VerificationError, shown

if TYPE_CHECKING:
    from dwindle.io import Checkpoint
    from dwindle.records import Record

Dwz = Annotated[Path, typer.Argument(metavar="FILE.dwz", help="The compressed file.")]

Trust = Annotated[
    bool,
    typer.Option(
        "--trust", help="Decode the file however large its tensors; refused over 256 MiB and 4,096 times it."
    ),
]


Base = Annotated[
    Path | None,
    typer.Option("--base", help="The checkpoint it holds differences from, if it does.", show_default=False),
]


Layers = Annotated[
    Path | None, typer.Option("--layers", help="The prototxt of a .net file.", show_default=False)
]


def _read_base(base: Path | None) -> Mapping[str, Record] | None:
    """The tensors of a checkpoint, read as they are asked for."""
    return None if base is None else _checkpoint(base).records


def _checkpoint(path: Path, key: str | None = None, layers: Path | None = None) -> Checkpoint:
    from dwindle.io import read_checkpoint

    return read_checkpoint(path, key=key, layers=layers)


def _most(trust: bool) -> str | None:
    return None if trust else "auto"


def inspect(
    file: Dwz,
    compare: Annotated[
        bool,
        typer.Option(
            "--compare", help="What every other coding would make of the same tensors, and zip, zstd and xz."
        ),
    ] = False,
    trust: Trust = False,
    base: Base = None,
    as_json: Json = False,
) -> None:
    """Show where every byte of a file goes, with the zero-order entropy beside each stream.

    Example: dwindle inspect model.dwz
    """
    from dwindle.code.compare import compare as compare_codings
    from dwindle.code.general import estimate
    from dwindle.file import Archive, ledger
    from dwindle.records import Shared

    with Archive(file, max_bytes=_most(trust), base=_read_base(base)) as archive:
        book = ledger(archive)
        table, general = None, {}
        if compare:
            found = {name: archive.record(name) for name in archive}
            table = compare_codings({n: record for n, record in found.items() if isinstance(record, Shared)})
            general = estimate(found)
    if as_json:
        extra = {"comparison": table.to_json() | {"general": general}} if table else {}
        about = {"file": str(file), "bytes": book.file_size, "metadata": archive.metadata}
        print_json({**about, **book.to_json(), **extra})
        return
    show.ledger(f"{file}: {size(book.file_size)} bytes, {book.rate:.2f}x", book)
    if table:
        show.comparison(table)
        show.general(general, {tensor.name: tensor.size for tensor in book.tensors})


def verify(
    file: Dwz,
    against: Annotated[
        Path | None, typer.Option("--against", help="The checkpoint it was made from.", show_default=False)
    ] = None,
    key: Annotated[
        str | None, typer.Option("--key", help="Where the state dict is in that checkpoint.")
    ] = None,
    layers: Layers = None,
    trust: Trust = False,
    base: Base = None,
    as_json: Json = False,
) -> None:
    """Decode every byte of a file and check it; with --against, measure how far it is from the original.

    Exit status 1 where it is not what the original became.

    Example: dwindle verify model.dwz --against model.safetensors
    """
    from dwindle.file import Archive

    with Archive(file, max_bytes=_most(trust), base=_read_base(base)) as archive:
        archive.check()
        result: dict[str, object] = {"file": str(file), "tensors": len(archive), "ok": True}
        rows = []
        if against is not None:
            from dwindle.verify import distances

            original = _checkpoint(against, key, layers).records
            try:
                found = list(distances(archive, original, against))
            except VerificationError as error:
                if as_json:
                    print_json(result | {"against": str(against), "ok": False, "error": str(error)})
                raise
            result["against"] = str(against)
            result["distances"] = [vars(distance) for distance in found]
            rows = [
                (d.name, "exact", "", "", "")
                if d.exact
                else (
                    d.name,
                    show.changed(d),
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
        str,
        typer.Option(
            "-o",
            "--output",
            help=".safetensors, .npz, .pt, .onnx or .net, or a folder of safetensors shards.",
            show_default=False,
        ),
    ],
    shard_size: Annotated[
        str | None,
        typer.Option(
            "--shard-size",
            help="Bytes of a shard, such as 2GB or 500MB; without it those the file was made from, or 5GB.",
            show_default=False,
        ),
    ] = None,
    force: Force = False,
    trust: Trust = False,
    base: Base = None,
    as_json: Json = False,
) -> None:
    """Write the tensors of a file as an ordinary checkpoint.

    A folder (one that is there, a name without a suffix, or with a slash at its end) gets safetensors shards
    and their index: those that the file was made from, or shards of --shard-size.

    Example: dwindle decompress model.dwz -o model.safetensors
    """
    from dwindle import atomic
    from dwindle.file import Archive
    from dwindle.io import folder as folders
    from dwindle.io import is_folder, shards, write_checkpoint
    from dwindle.io.checkpoint import TORCH_SUFFIXES

    most = None if shard_size is None else _bytes(shard_size)
    path, folder = Path(output), is_folder(output, most)
    other = None if base is None else _checkpoint(base)
    needed = () if other is None else other.files
    if folder and needed:
        folders.check(path, ours=shards.is_ours, force=force, inputs=needed)
    elif not folder:
        atomic.check_output(path, force=force, inputs=(file, *needed))
    with Archive(file, max_bytes=_most(trust), base=None if other is None else other.records) as archive:
        if path.suffix.lower() not in TORCH_SUFFIXES:
            archive.check_expansion(ties=True)
        written = write_checkpoint(
            output,
            archive.records,
            archive.metadata,
            extras=archive.extras,
            shard_size=most,
            source=file,
            force=force,
        )
        tensors = len(archive)
    dropped = [] if folder or path.suffix.lower() == ".safetensors" else list(archive.metadata)
    used = sum(part.stat().st_size for part in written)
    if as_json:
        about = {"file": str(file), "output": str(path), "tensors": tensors, "bytes": used}
        print_json(about | {"files": [str(part) for part in written], "metadata_left_out": dropped})
        return
    files = f" in {len(written)} files" if len(written) > 1 else ""
    say(f"{path}: {tensors} tensors{files}, {size(used)} bytes")
    if dropped:
        say(f"metadata left out, since {path.suffix} has no place for it: {', '.join(map(shown, dropped))}")


def _bytes(text: str) -> int:
    """A number of bytes, such as 500MB, 2GB, 1.5GiB or 1000000."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(?:([KMGT])(i?))?B?", text.strip(), re.IGNORECASE | re.ASCII)
    exponent = " KMGT".index(found[2].upper()) if found and found[2] else 0
    count = int(Decimal(found[1]) * (1024 if found[3] else 1000) ** exponent) if found else 0
    if not 0 < count < 1 << 63:
        message = f"expected a size such as 2GB or 500MB, got {text!r}"
        raise typer.BadParameter(message, param_hint="--shard-size")
    return count


def diff(
    left: Annotated[Path, typer.Argument(metavar="A", help="A .dwz file or a checkpoint.")],
    right: Annotated[Path, typer.Argument(metavar="B", help="Another.")],
    key: Annotated[str | None, typer.Option("--key", help="Where the state dict is in a checkpoint.")] = None,
    layers: Layers = None,
    trust: Trust = False,
    base: Base = None,
    as_json: Json = False,
) -> None:
    """Compare two files tensor by tensor: which are the same to the bit, and how far B is from A elsewhere.

    Exit status 1 where they differ. --key and --layers are for whichever of the two needs them.

    Example: dwindle diff model.safetensors model.dwz
    """
    from dwindle.file import Archive
    from dwindle.io.checkpoint import TORCH_SUFFIXES
    from dwindle.verify import differences

    suffixes = {left.suffix.lower(), right.suffix.lower()}
    if key is not None and suffixes.isdisjoint(TORCH_SUFFIXES):
        raise typer.BadParameter("expected a torch checkpoint with it, got none", param_hint="--key")
    if layers is not None and ".net" not in suffixes:
        raise typer.BadParameter("expected a .net file with it, got none", param_hint="--layers")
    with ExitStack() as stack:

        def tensors(path: Path) -> Mapping[str, Record]:
            suffix = path.suffix.lower()
            if suffix != ".dwz":
                nested = key if suffix in TORCH_SUFFIXES else None
                return _checkpoint(path, nested, layers if suffix == ".net" else None).records
            opened = Archive(path, max_bytes=_most(trust), base=_read_base(base))
            return stack.enter_context(opened).records

        found = list(differences(tensors(left), tensors(right)))
    same = sum(difference.kind == "same" for difference in found)
    if as_json:
        listed = [vars(d) | {"distance": vars(d.distance) if d.distance else None} for d in found]
        about = {"left": str(left), "right": str(right), "same": same == len(found)}
        print_json(about | {"tensors": listed})
    else:
        show.differences(found)
        typer.echo(f"{same} of {len(found)} tensors are the same to the bit")
    if same < len(found):
        raise typer.Exit(1)
