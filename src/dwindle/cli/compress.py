"""The command that compresses a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from dwindle.cli import show
from dwindle.cli.output import Force, Json, Threads, print_json, progress, say, size

T = TypeVar("T", int, float)


def compress(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="IN", help=".safetensors, .pt (weights only), .npz, .onnx, .net, or a folder of shards"
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The .dwz to write.", show_default=False)],
    prune: Annotated[
        str | None,
        typer.Option(
            help="Share of weights to remove: 0.9, or by name, pattern or type: conv=0.6,linear=0.9"
        ),
    ] = None,
    quality: Annotated[
        float | None,
        typer.Option(
            help="Signal to noise in dB: 25 without it, hard to tell from the original; 6 less saves a bit "
            "a weight.",
            show_default=False,
        ),
    ] = None,
    target_size: Annotated[
        int | None,
        typer.Option(min=1, help="Instead, the best quality in so many bytes.", show_default=False),
    ] = None,
    entropy_constrained: Annotated[
        bool,
        typer.Option(
            "--entropy-constrained",
            help="Less squared error for the bytes at low quality, but most outputs get worse.",
        ),
    ] = False,
    bits: Annotated[
        str | None,
        typer.Option(
            help="Codebooks by k-means instead, with indices of so many bits: 8, or "
            "conv=8,linear=5,head.weight=6, the rest exact; none shares nothing.",
            show_default=False,
        ),
    ] = None,
    init: Annotated[
        str, typer.Option(help="Start of k-means by --bits: linear, density, forgy or optimal.")
    ] = "linear",
    lossless: Annotated[
        bool, typer.Option("--lossless", help="Change nothing: every tensor comes back to the bit.")
    ] = False,
    base: Annotated[
        Path | None,
        typer.Option(
            help="A checkpoint to store exact tensors as differences from; needed to read the file too.",
            show_default=False,
        ),
    ] = None,
    codebook: Annotated[
        str | None, typer.Option(help="Round codebooks: float16 or bfloat16.", show_default=False)
    ] = None,
    coder: Annotated[
        str, typer.Option(help="auto (the smallest), context, rans, huffman, fixed, csr or csc.")
    ] = "auto",
    decode_seconds: Annotated[
        float, typer.Option(min=0, help="What auto may spend on decoding, as reckoned for one core.")
    ] = 1.0,
    gap_bits: Annotated[
        int | None, typer.Option(help="Bits of a gap, 1 to 16; the best for each tensor without it.")
    ] = None,
    dictionary: Annotated[
        str, typer.Option(help="One Huffman code per layer, or one for the network.")
    ] = "layer",
    layers: Annotated[
        Path | None, typer.Option(help="The prototxt of a .net file.", show_default=False)
    ] = None,
    key: Annotated[str | None, typer.Option(help="Where a nested state dict is, such as model.ema.")] = None,
    min_elements: Annotated[
        int | None,
        typer.Option(
            min=0, help="Leave smaller tensors exact: 4096, or 64 by --quality.", show_default=False
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of --init forgy.")] = 0,
    threads: Threads = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Compress a checkpoint, without its model's code, and verify the file before returning.

    Without options: float tensors of two or more dimensions are rounded to levels, the finer the smaller the
    tensor, biases and norms to a few significant bits, and everything else is exact, to the bit. --lossless
    keeps all of it so; a .net file, whose weights have codebooks already, is kept so without options.

    Example: dwindle compress model.safetensors -o model.dwz --prune 0.8 --bits conv=8,linear=5
    """
    from dwindle.checkpoints import compress_checkpoint
    from dwindle.code.plan import Coding
    from dwindle.share.kmeans import OPTIMAL_MAX
    from dwindle.share.levels import check_quality
    from dwindle.share.starts import INITS

    if init not in INITS:
        raise typer.BadParameter(f"expected one of {', '.join(INITS)}, got {init}", param_hint="--init")
    try:
        coding = Coding(coder, gap_bits, dictionary, decode_seconds)  # type: ignore[arg-type]
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    if output.suffix in (".safetensors", ".pt", ".pth", ".npz", ".onnx", ".net") and not output.exists():
        name = output.with_suffix(".dwz").name
        raise typer.BadParameter(f"expected a name such as {name}, got {output.name}", param_hint="--output")
    if codebook not in (None, "float16", "bfloat16"):
        raise typer.BadParameter(f"expected float16 or bfloat16, got {codebook}", param_hint="--codebook")
    if lossless and (prune is not None or bits is not None or quality is not None):
        raise typer.BadParameter("expected it without --prune, --bits and --quality", param_hint="--lossless")
    shares = _setting(prune, float, "--prune", lambda share: 0 <= share <= 1, "a share from 0 to 1")
    if bits is not None and quality is not None:
        raise typer.BadParameter("expected --quality or --bits, got both")
    if quality is not None:
        try:
            check_quality(quality)
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--quality") from error
    if target_size is not None and (quality is not None or bits is not None or lossless):
        raise typer.BadParameter(
            "expected it without --quality, --bits and --lossless", param_hint="--target-size"
        )
    if entropy_constrained and (bits is not None or lossless):
        raise typer.BadParameter(
            "expected it without --bits and --lossless", param_hint="--entropy-constrained"
        )
    if codebook is not None and bits is None:
        raise typer.BadParameter("expected --bits with it, got none", param_hint="--codebook")
    widths = _setting(bits, int, "--bits", lambda width: 1 <= width <= 16, "1 to 16 bits")
    if bits == "none":
        widths = {}
    widest = max(
        [0, *(width or 0 for width in widths.values())] if isinstance(widths, dict) else [widths or 0]
    )
    if init == "optimal" and 1 << widest > OPTIMAL_MAX:
        most = OPTIMAL_MAX.bit_length() - 1
        raise typer.BadParameter(
            f"expected at most {most} bits with optimal, got {widest}", param_hint="--init"
        )
    with progress(None, "compressing", quiet=as_json) as step:
        result = compress_checkpoint(
            source,
            output,
            key=key,
            layers=layers,
            base=base,
            lossless=lossless,
            codebook=codebook,
            sparsity=shares,
            quality=quality,
            target_size=target_size,
            entropy_constrained=entropy_constrained,
            bits=widths,
            init=init,  # type: ignore[arg-type] # checked above
            coding=coding,
            min_elements=min_elements,
            seed=seed,
            force=force,
            threads=threads,
            progress=step,
        )
    if as_json:
        listed = {"notes": result.notes, "skipped": result.skipped, "kept": result.kept}
        about = {"source": str(source), "file": str(output), "bytes": result.size}
        print_json({**about, **result.ledger.to_json(), **listed})
        return
    show.ledger(f"{output}: {size(result.size)} bytes, {result.rate:.2f}x", result.ledger)
    for note in result.notes:
        say(note)
    if base is not None:
        tensors = result.ledger.tensors
        differences = sum(tensor.coding == "based" for tensor in tensors)
        needed = f"to read them takes {base}" if differences else f"{base} is not needed to read the file"
        say(f"{differences} of {len(tensors)} tensors are differences: {needed}")
    for name in result.skipped:
        kept = name in result.kept
        say(f"{name}: of another type, kept in the graph" if kept else f"{name}: not a tensor, left out")


def _setting(
    text: str | None, number: Callable[[str], T], option: str, fits: Callable[[T], bool], what: str
) -> T | dict[str, T | None] | None:
    """A number, or numbers by key: "8" or "conv=8,linear=5"; "none" leaves alone."""

    def parse(word: str) -> T | None:
        if word == "none":
            return None
        try:
            value = number(word)
        except ValueError:
            value = None
        if value is None or not fits(value):
            raise typer.BadParameter(f"expected {what}, got {word!r}", param_hint=option)
        return value

    if text is None or "=" not in text:
        return None if text is None else parse(text)
    found: dict[str, T | None] = {}
    for item in text.split(","):
        key, equals, word = item.rpartition("=")
        if not equals:
            raise typer.BadParameter(f"expected key=value, got {item!r}", param_hint=option)
        found[key] = parse(word)
    return found
