import math
from decimal import Decimal, getcontext

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from dwindle.kernels import arithmetic
from dwindle.kernels.arithmetic import (
    DOMAIN,
    FRESH,
    RATES,
    SQUASH,
    STRETCH,
    WHOLE,
    adapted,
    chance,
    decode_bit,
    encode_bit,
    finish,
    first_code,
    squash,
    stretch,
)

compiles = settings(deadline=None, max_examples=150)


@njit
def encode(steps, out):
    """Steps of (probability, bit)."""
    low, span, at = np.uint64(0), WHOLE, np.uint64(0)
    for i in range(len(steps)):
        low, span, at = encode_bit(out, low, span, at, steps[i, 0], steps[i, 1])
    return finish(out, low, span, at)


@njit
def decode(data, steps, values):
    code, span, at = first_code(data), WHOLE, np.uint64(8)
    for i in range(len(steps)):
        values[i], code, span, at = decode_bit(data, code, span, at, steps[i, 0])
    return at


def plain_encode(steps):
    """The same interval as an exact fraction of whole numbers, without carries or a limited width."""
    low, span, shift = 0, 2**64 - 1, 0
    for p, bit in steps:
        bound = (span >> 16) * p
        low, span = (low, bound) if bit else (low + bound, span - bound)
        if span < 2**32:
            low, span, shift = low << 32, span << 32, shift + 4
    kept = 56
    while (end := -(-low >> kept) << kept) - low >= span:
        kept -= 8
    return end.to_bytes(shift + 9, "big")[1:].rstrip(b"\0")  # the number is under 1, so the first byte is 0


def plain_decode(data, steps):
    size = max(len(data), 8 + 2 * len(steps) + 8)
    number = int.from_bytes(data.ljust(size, b"\0"), "big")
    width = 8 * size
    low, span, read, values = 0, 2**64 - 1, 64, []
    for p, _ in steps:
        code = (number >> (width - read)) - low
        bound = (span >> 16) * p
        values.append(int(code < bound))
        low, span = (low, bound) if code < bound else (low + bound, span - bound)
        if span < 2**32:
            low, span, read = low << 32, span << 32, read + 32
    return values


def as_steps(steps):
    return np.array(steps, np.uint64).reshape(-1, 2)


def round_trip(steps):
    array = as_steps(steps)
    out = np.full(8 + 2 * len(steps) + 8, 0xAA, np.uint8)
    size = int(encode(array, out))
    data = out[:size].tobytes()
    assert data == plain_encode(steps)
    assert not data.endswith(b"\0")
    values = np.zeros(len(steps), np.uint64)
    at = int(decode(out[:size].copy(), array, values))
    assert values.tolist() == [bit for _, bit in steps]
    assert size <= at
    return data


PROBABILITY = st.one_of(st.integers(1, 65535), st.sampled_from([1, 2, 32768, 65534, 65535]))
BIT = st.tuples(PROBABILITY, st.integers(0, 1))


@given(st.lists(BIT, max_size=300))
@compiles
def test_round_trip(steps):
    round_trip(steps)


@pytest.mark.parametrize("p", [1, 65535, 32768])
@pytest.mark.parametrize("bit", [0, 1])
def test_runs(p, bit):
    data = round_trip([(p, bit)] * 5000)
    ideal = -5000 * math.log2(p / 65536 if bit else 1 - p / 65536) / 8
    assert len(data) <= ideal * 1.0001 + 8


def test_carries_run_through_many_bytes():
    """The upper half again and again fills the output with 0xFF; then the number grows past it."""
    steps = [(1, 0)] * 2000 + [(65535, 0)] * 20
    for last in range(200):
        round_trip([*steps, *[(40000, last & 1)] * last])


def test_nothing_is_no_bytes():
    assert round_trip([]) == b""


def test_close_to_the_bits_information():
    rng = np.random.default_rng(0)
    p = rng.integers(1, 65536, 20_000)
    bits = (rng.integers(0, 65536, 20_000) < p).astype(int)
    ideal = -np.log2(np.where(bits, p, 65536 - p) / 65536).sum() / 8
    data = round_trip([(int(a), int(b)) for a, b in zip(p, bits, strict=True)])
    assert len(data) <= ideal + 5


@given(st.binary(max_size=60), st.lists(BIT, max_size=100))
@compiles
def test_any_bytes_decode_to_something(data, steps):
    values = np.zeros(len(steps), np.uint64)
    decode(np.frombuffer(data, np.uint8), as_steps(steps), values)
    if not data.startswith(b"\xff" * 8):  # which no encoder writes
        assert values.tolist() == plain_decode(data, steps)
    assert set(values.tolist()) <= {0, 1}


@given(st.lists(BIT, min_size=1, max_size=200), st.integers(0, 40))
@compiles
def test_a_full_output_is_not_overrun(steps, room):
    out = np.full(room + 16, 0xAA, np.uint8)
    size = int(encode(as_steps(steps), out[:room]))
    data = plain_encode(steps)
    assert size >= len(data)
    assert (out[room:] == 0xAA).all()
    if size <= room:
        assert out[:size].tobytes() == data


def test_squash_is_the_logistic_function():
    getcontext().prec = 40
    odds = np.arange(-DOMAIN, DOMAIN + 1) / 256
    exact = 65536 / (1 + np.exp(-odds))
    assert np.abs(SQUASH - exact).max() <= 1
    assert SQUASH.min() == 1
    assert SQUASH.max() == 65535
    assert (np.diff(SQUASH.astype(int)) >= 0).all()
    ratio = int((Decimal(1) / 256).exp() * 2**64)
    assert SQUASH[DOMAIN + 256] == ((e := _power(ratio, 256)) << 16) // (e + 2**64)


def _power(ratio, exponent):
    power = 2**64
    for _ in range(exponent):
        power = power * ratio >> 64
    return power


def test_stretch_inverts_squash():
    for i in range(4096):
        t = int(STRETCH[i])
        assert SQUASH[t + DOMAIN] >= 16 * i + 8
        assert t == -DOMAIN or SQUASH[t + DOMAIN - 1] < 16 * i + 8


@njit
def odds_of(p):
    return stretch(p)


@njit
def probability_of(odds):
    return squash(odds)


def test_stretch_and_squash_kernels():
    assert odds_of(np.uint64(32768)) == STRETCH[2048]
    assert odds_of(np.uint64(65535)) == STRETCH[4095]
    assert probability_of(0) == 32768
    assert probability_of(10**9) == 65535
    assert probability_of(-(10**9)) == 1


@njit
def adapt_all(bits, limit):
    state = FRESH
    states, chances = np.empty(len(bits), np.uint32), np.empty(len(bits), np.uint64)
    for i in range(len(bits)):
        state = adapted(state, np.uint64(bits[i]), limit)
        states[i] = state
        chances[i] = chance(state)
    return states, chances


@given(st.lists(st.integers(0, 1), max_size=200), st.sampled_from([0, 1, 6, 30, 255, 1023]))
@compiles
def test_adaptive_probability(bits, limit):
    p, updates, expected = 2**21, 0, []
    for bit in bits:
        aim = 2**22 - 64 if bit else 64
        p += (aim - p) * int(RATES[updates]) >> 16
        updates = min(updates + 1, limit)
        expected.append(p << 10 | updates)
    states, chances = adapt_all(np.array(bits, np.uint8), np.uint64(limit))
    assert states.tolist() == expected
    assert all(1 <= p <= 65535 for p in chances.tolist())


def test_adaptive_probability_is_a_mean_at_first():
    bits = np.array(([1] * 7 + [0] * 3) * 60, np.uint8)
    assert abs(int(adapt_all(bits, np.uint64(1023))[1][-1]) / 2**16 - 0.7) < 0.01


def test_constant_bits_reach_the_ends():
    for bit, end in ((1, 65535), (0, 1)):
        _, chances = adapt_all(np.full(300_000, bit, np.uint8), np.uint64(30))
        assert abs(int(chances[-1]) - end) <= 1


def test_rates():
    assert RATES.tolist() == [131072 // (2 * n + 3) for n in range(1024)]
    assert len(RATES) == int(arithmetic.LIMIT) + 1
