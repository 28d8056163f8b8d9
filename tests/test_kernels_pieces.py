"""Planes of bytes against plain Python and the reference decoder; every way to store one; any bytes."""

import importlib.util
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dwindle.code.lengths import code_lengths
from dwindle.kernels import codes, huffman_encode, pieces_decode, pieces_encode, planes
from dwindle.kernels.words import BROKEN

DECODER = Path(__file__).parent.parent / "docs" / "reference_decoder.py"
quick = settings(max_examples=60, deadline=None)
RANDOM = np.random.default_rng(0)
widths, turns = st.sampled_from([1, 2, 4, 8]), st.integers(0, 2)


@cache
def reference():
    spec = importlib.util.spec_from_file_location("reference_decoder", DECODER)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def encoded(words, turn):
    room = pieces_encode.capacity(words.itemsize, len(words))
    out = np.full(room + 9, 0xA5, np.uint8)
    end = int(
        pieces_encode.encode(words, np.uint64(turn), out, np.uint64(1), pieces_encode.work(words.itemsize))
    )
    assert end <= room + 1
    assert (out[0], *out[room + 1 :]) == (0xA5,) * 9
    return out[1:end].tobytes()


def decoded(data, count, width, turn):
    """The words, and where they end, or None."""
    words, sizes = np.zeros(count, f"<u{width}"), np.empty(2, np.uint64)
    room = pieces_decode.room(width)
    end = pieces_decode.decode(
        np.frombuffer(data, np.uint8), np.uint64(0), np.uint64(turn), words, room, sizes
    )
    if end == BROKEN:
        return None
    assert sizes.sum() == end
    return words, int(end)


def check(words, turn, oracle=True):
    data = encoded(words, turn)
    back, end = decoded(data + b"xyz", len(words), words.itemsize, turn)
    assert end == len(data)
    assert np.array_equal(back, words)
    if oracle:
        source = reference().Bytes(data)
        assert reference().read_planes(source, len(words), words.itemsize, turn) == words.tolist()
        assert source.at == len(data)
    return data


def kinds(data, count, width):
    """How each plane is stored, by the reference decoder."""
    module, found = reference(), []
    source, known = module.Bytes(data), [None] * width
    for start in range(0, count, planes.PIECE):
        for number in range(width):
            found.append(source.data[source.at])
            module.read_plane(source, min(planes.PIECE, count - start), known, number)
    return found


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=40), widths, turns)
@quick
def test_words_are_cut_as_plain_python_does(values, width, turn):
    bits = 8 * width
    words = np.array([v % (1 << bits) for v in values], f"<u{width}")
    out = np.empty((width, len(words)), np.uint8)
    lowest = planes.split(words, np.uint64(turn), out)
    turned = [(v << turn | v >> bits - turn) % (1 << bits) for v in words.tolist()]
    assert out.T.tolist() == [list(v.to_bytes(width, "big")) for v in turned]
    seen = {v & 1 for v in turned}
    assert lowest == (seen.pop() if len(seen) == 1 else 2)
    back = np.empty_like(words)
    planes.merge(*[out[min(i, width - 1)] for i in range(8)], np.uint64(turn), back)
    assert np.array_equal(back, words)


@given(st.binary(max_size=70), st.integers(0, 1))
@quick
def test_seven_bits(data, lowest):
    plane = np.frombuffer(data, np.uint8) & 0xFE | lowest
    packed = np.empty(len(plane) - len(plane) // 8, np.uint8)
    planes.pack_sevens(plane, packed)
    back = np.empty_like(plane)
    planes.unpack_sevens(packed, np.uint8(lowest), back)
    assert np.array_equal(back, plane)


@st.composite
def any_words(draw):
    width, n = draw(widths), draw(st.one_of(st.integers(0, 300), st.integers(4000, 9000)))
    random = np.random.default_rng(draw(st.integers(0, 1000)))
    spread = draw(st.sampled_from([0, 3, 40, 8 * width]))
    words = random.integers(0, 2**63, n).astype(f"<u{width}")
    return np.where(
        random.random(n) < 0.8, words >> np.array(max(8 * width - 1 - spread, 0), words.dtype), words
    )


@given(any_words(), turns)
@quick
def test_any_words_come_back(words, turn):
    check(words, turn)


def floats(n, scale=0.05):
    return (RANDOM.normal(size=n) * scale).astype("<f4").view("<u4")


def test_the_ways_to_store_a_plane():
    stored, one, coded, sevens = planes.STORED, planes.ONE, planes.CODED, planes.SEVENS
    small = floats(2000)
    assert kinds(check(small, 2), 2000, 4) == [coded, stored, stored, sevens]
    assert kinds(check(small | 1 << 30, 2), 2000, 4)[3] == sevens
    assert kinds(check(floats(20_000, 1.0), 2), 20_000, 4)[3] == coded
    assert kinds(check(np.full(300, 7, "<u2"), 0), 300, 2) == [one, one]
    assert kinds(check(small & 0xFFFF0000, 2), 2000, 4) == [coded, coded, one, coded]
    assert kinds(check(RANDOM.integers(0, 256, 5000).astype(np.uint8), 0), 5000, 1) == [stored]


@pytest.mark.parametrize("pieces", [1, 2, 5])
def test_a_code_serves_pieces_like_its_own(pieces):
    words = (floats(pieces * planes.PIECE - 5) >> 16).astype("<u2")
    data = check(words, 2, oracle=False)
    found = kinds(data, len(words), 2)
    assert found[:2] == [planes.CODED, planes.SEVENS]
    assert (planes.AGAIN in found) == (pieces > 1)
    assert len(data) < 0.67 * words.nbytes


def test_a_code_that_lacks_a_byte_is_not_used_again():
    """A sample of the second piece misses the one byte that has no code."""
    words = floats(2 * planes.PIECE)
    words[planes.PIECE + 300] = 0xFFFFFFFF
    words[planes.PIECE + 301] = 0x00000001
    assert kinds(check(words, 2, oracle=False), len(words), 4)[4] == planes.CODED


def test_a_code_that_was_not_written_is_not_used():
    """About where a code begins to pay, the one of the first piece may be dropped when all is coded."""
    random = np.random.default_rng(2)
    sevens, order = random.integers(0, 128, 2 * planes.PIECE), random.permutation(planes.PIECE)
    first = set()
    for zeros in range(6000, 7000, 10):
        plane = sevens.copy()
        plane[order[:zeros]] = plane[planes.PIECE + order[: zeros + 300]] = 0
        plane = (plane << 1).astype("<u2")
        data = check(plane >> 2 | plane << 14, 2, oracle=False)
        assert data[:2] == bytes([planes.ONE, 0])
        first.add(data[2])
    assert first == {planes.CODED, planes.SEVENS}


def test_pairs_are_coded_as_bytes_are():
    plane = np.minimum(RANDOM.geometric(0.2, 40_003), 50).astype(np.uint8)
    lengths = code_lengths(np.bincount(plane, minlength=256), 12)
    entries, pairs, paired = np.empty(256, np.uint64), np.zeros(1 << 16, np.uint64), np.zeros(256, np.uint8)
    # What is left of another code must not be found.
    for other in (np.roll(lengths, 9), lengths):
        codes.codes_of(other, np.empty(16, np.uint64), entries)
        assert codes.pairs_of(entries, pairs, paired)
    found = []
    for table in (pairs, pairs[:0]):
        out, lanes = np.zeros(80_000, np.uint8), np.zeros((2, 8), np.uint64)
        arguments = entries, np.int64(12), np.int64(6), np.uint64(130_000), table, out, lanes
        assert huffman_encode.encode(plane, *arguments) == 6
        found.append((lanes.sum(1).tolist()[0], out[: int(lanes[1, :6].sum())].tobytes()[:1000]))
        plane[20_000] = 255  # has no code
        assert huffman_encode.encode(plane, *arguments) == 0
        plane[20_000] = 3
    assert found[0] == found[1]
    wide = code_lengths(np.ones(256, np.int64))
    codes.codes_of(wide, np.empty(16, np.uint64), entries)
    assert not codes.pairs_of(entries, pairs, paired)
    assert not pairs.any()


@pytest.mark.parametrize("words", [floats(3000), floats(20_000), (floats(70_000) >> 16).astype("<u2")])
def test_damaged_planes_are_refused_or_decode(words):
    data, width = encoded(words, 2), words.itemsize
    for size in [*range(100), *RANDOM.integers(0, len(data), 100).tolist(), len(data) - 1]:
        assert decoded(data[:size], len(words), width, 2) is None
    for bit in [*range(800), *RANDOM.integers(0, 8 * len(data), 200).tolist()]:
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        found = decoded(bytes(flipped), len(words), width, 2)
        assert found is None or found[1] <= len(data)


@given(st.binary(max_size=60), st.integers(1, 40), widths, turns)
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_refused_or_decode(data, count, width, turn):
    found = decoded(data, count, width, turn)
    source = reference().Bytes(data)
    try:
        words = reference().read_planes(source, count, width, turn)
    except (ValueError, LookupError):
        assert found is None
    else:
        assert found is not None
        assert (found[0].tolist(), found[1]) == (words, source.at)
