"""The figures of Han, Mao, Dally 2016 (tables 2 to 5) and Han et al. 2015, to stand beside ours."""

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
        layers: by the name of our weight tensor, from the input on.
        total: density, size after sharing and size after coding of the whole network, percent.
        errors: test error before and after, percent; top-1 on ImageNet.
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
    # Caffe's: its convolutions have other shapes than ours, in two groups.
    "alexnet": PaperNetwork(
        layers={
            "features.0.weight": PaperRow(84, (8, 6.3), (4, 1.2), 32.6, 20.53),
            "features.3.weight": PaperRow(38, (8, 5.5), (4, 2.3), 14.5, 9.43),
            "features.6.weight": PaperRow(35, (8, 5.1), (4, 2.6), 13.1, 8.44),
            "features.8.weight": PaperRow(37, (8, 5.2), (4, 2.5), 14.1, 9.11),
            "features.10.weight": PaperRow(37, (8, 5.6), (4, 2.5), 14.0, 9.43),
            "classifier.1.weight": PaperRow(9, (5, 3.9), (4, 3.2), 3.0, 2.39),
            "classifier.4.weight": PaperRow(9, (5, 3.6), (4, 3.7), 3.0, 2.46),
            "classifier.6.weight": PaperRow(25, (5, 4.0), (4, 3.2), 7.3, 5.85),
        },
        total=(11, 3.7, 2.88),
        errors=(42.78, 42.78),
        file_bytes=6_900_000,
        rate=35,
        pruned_parameters=6_700_000,
        pruned_error=42.77,
    ),
    "vgg-16": PaperNetwork(
        layers={
            "features.0.weight": PaperRow(58, (8, 6.8), (5, 1.7), 40.0, 29.97),
            "features.2.weight": PaperRow(22, (8, 6.5), (5, 2.6), 9.8, 6.99),
            "features.5.weight": PaperRow(34, (8, 5.6), (5, 2.4), 14.3, 8.91),
            "features.7.weight": PaperRow(36, (8, 5.9), (5, 2.3), 14.7, 9.31),
            "features.10.weight": PaperRow(53, (8, 4.8), (5, 1.8), 21.7, 11.15),
            "features.12.weight": PaperRow(24, (8, 4.6), (5, 2.9), 9.7, 5.67),
            "features.14.weight": PaperRow(42, (8, 4.6), (5, 2.2), 17.0, 8.96),
            "features.17.weight": PaperRow(32, (8, 4.6), (5, 2.6), 13.1, 7.29),
            "features.19.weight": PaperRow(27, (8, 4.2), (5, 2.9), 10.9, 5.93),
            "features.21.weight": PaperRow(34, (8, 4.4), (5, 2.5), 14.0, 7.47),
            "features.24.weight": PaperRow(35, (8, 4.7), (5, 2.5), 14.3, 8.00),
            "features.26.weight": PaperRow(29, (8, 4.6), (5, 2.7), 11.7, 6.52),
            "features.28.weight": PaperRow(36, (8, 4.6), (5, 2.3), 14.8, 7.79),
            "classifier.0.weight": PaperRow(4, (5, 3.6), (5, 3.5), 1.6, 1.10),
            "classifier.3.weight": PaperRow(4, (5, 4.0), (5, 4.3), 1.5, 1.25),
            "classifier.6.weight": PaperRow(23, (5, 4.0), (5, 3.4), 7.1, 5.24),
        },
        total=(7.5, 3.2, 2.05),
        errors=(31.50, 31.17),
        file_bytes=11_300_000,
        rate=49,
        pruned_parameters=10_300_000,
        pruned_error=31.34,
    ),
}
