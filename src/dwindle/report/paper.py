"""The figures of Han, Mao, Dally 2016 (tables 2 and 3) and Han et al. 2015, to stand beside ours."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PaperRow:
    """One layer in the paper's table.

    Attributes:
        density: percent of weights left.
        index_bits: bits of a weight's index, before and after Huffman coding.
        gap_bits: bits of a gap, before and after.
        shared: size after pruning and sharing, percent of the original.
        coded: size after Huffman coding too, percent of the original.
    """

    density: float
    index_bits: tuple[float, float]
    gap_bits: tuple[float, float]
    shared: float
    coded: float


@dataclass(frozen=True)
class PaperNetwork:
    """One network in the papers.

    Attributes:
        layers: by the name of our weight tensor.
        total: density, size after sharing and size after coding of the whole network, percent.
        errors: test error before and after, percent.
        file_bytes: the file's size, at most (the paper gives KB).
        rate: of the whole file.
        pruned_parameters: parameters left after pruning alone.
        pruned_error: test error after pruning alone, percent.
    """

    layers: dict[str, PaperRow]
    total: tuple[float, float, float]
    errors: tuple[float, float]
    file_bytes: int
    rate: float
    pruned_parameters: int
    pruned_error: float


PAPER: dict[str, PaperNetwork] = {
    "lenet-300-100": PaperNetwork(
        layers={
            "fc1.weight": PaperRow(8, (6, 4.4), (5, 3.7), 3.1, 2.32),
            "fc2.weight": PaperRow(9, (6, 4.4), (5, 4.3), 3.8, 3.04),
            "fc3.weight": PaperRow(26, (6, 4.3), (5, 3.2), 15.7, 12.70),
        },
        total=(8, 3.1, 2.49),
        errors=(1.64, 1.58),
        file_bytes=27_000,
        rate=40,
        pruned_parameters=22_000,
        pruned_error=1.59,
    ),
    "lenet-5": PaperNetwork(
        layers={
            "conv1.weight": PaperRow(66, (8, 7.2), (5, 1.5), 78.5, 67.45),
            "conv2.weight": PaperRow(12, (8, 7.2), (5, 3.9), 6.0, 5.28),
            "fc1.weight": PaperRow(8, (5, 4.5), (5, 4.5), 2.7, 2.45),
            "fc2.weight": PaperRow(19, (5, 5.2), (5, 3.7), 6.9, 6.13),
        },
        total=(8, 3.05, 2.55),
        errors=(0.80, 0.74),
        file_bytes=44_000,
        rate=39,
        pruned_parameters=36_000,
        pruned_error=0.77,
    ),
}
