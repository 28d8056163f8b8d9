"""Reads `.dwz` files of versions 1 and 2 with NumPy and the standard library alone: `docs/format.md` in code.

    python docs/reference_decoder.py FILE.dwz [-o OUT.npz] [--base BASE.npz]

Written for reading, not for speed nor against hostile files: the limits of section 11 are left out. Element
types that NumPy has not (bfloat16, float8) come as their bits, in unsigned integers of the same width.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np

BLOCK = 1 << 20
STORAGE = "f8 f4 f2 u2 u1 u1 i8 i4 i2 i1 u8 u4 u2 u1 ? c8 c16".split()  # noqa: SIM905 (by dtype number)
FLOATS = range(6)  # the dtype numbers of floats; complex numbers are pairs of them
SHORT_EXPONENTS = (1, 3)  # of these, those whose exponents have eight bits
PARTS = {15: 1, 16: 0}  # the dtype numbers of complex numbers, and of their parts
EXTRA = "\0"
WORD, WIDE = (1 << 32) - 1, (1 << 64) - 1
Lengths = list[int]  # bits of each symbol's code, or weights of a rANS code; 0 where it has none
Code = tuple[str, Lengths] | None  # a stream's code; None for fixed width


def require(condition: bool, rule: str) -> None:
    """Stop where a rule of the format is broken."""
    if not condition:
        raise ValueError(f"expected {rule}")


class Bytes:
    """Bytes read from the front."""

    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data, self.at = data, at

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        require(count <= len(self.data) - self.at, f"{count} more bytes")
        self.at += count
        return self.data[self.at - count : self.at]

    def byte(self) -> int:
        """The next byte."""
        return self.take(1)[0]

    def varint(self) -> int:
        """The next varint."""
        value = shift = 0
        while True:
            digit = self.byte()
            value |= (digit & 0x7F) << shift
            shift += 7
            if digit < 0x80:
                require(digit > 0 or shift == 7, "a varint in its shortest form")
                return value
            require(shift < 63, "a varint of at most 63 bits")


class Bits(Bytes):
    """Bits read from the lowest of each byte on; `at` counts bits."""

    def bit(self) -> int:
        """The next bit."""
        require(self.at < 8 * len(self.data), "one more bit")
        self.at += 1
        return self.data[(self.at - 1) // 8] >> (self.at - 1) % 8 & 1

    def number(self, width: int) -> int:
        """The next `width` bits, the lowest first."""
        return sum(self.bit() << i for i in range(width))

    def unary(self) -> int:
        """How many ones come before the next zero."""
        return next(ones for ones in itertools.count() if not self.bit())

    def end(self) -> int:
        """Bytes used; what is left of the last one is zero."""
        require(self.number(-self.at % 8) == 0, "zero bits up to the end of a byte")
        return self.at // 8


def read_symbols_in_use(bits: Bits, alphabet: int) -> list[int]:
    """The symbols that a table is for."""
    if bits.bit():
        return list(range(alphabet))
    symbols: list[int] = []
    at, present, first = 0, True, 1
    while at < alphabet:
        low = bits.unary()
        run = (1 << low) + bits.number(low) - first
        require(run <= alphabet - at, "runs within the alphabet")
        symbols += range(at, at + run) if present else ()
        at, present, first = at + run, not present, 0
    return symbols


def read_difference(bits: Bits, k: int) -> int:
    """A Rice-coded difference."""
    z = (bits.unary() << k) + bits.number(k)
    return -(z + 1) // 2 if z % 2 else z // 2


def read_lengths(source: Bytes, alphabet: int) -> Lengths:
    """A table of code lengths (section 7.2)."""
    bits = Bits(source.data[source.at :])
    k = bits.number(2)
    symbols = read_symbols_in_use(bits, alphabet)
    lengths = [0] * alphabet
    previous = max(len(symbols) - 1, 1).bit_length()
    for symbol in symbols[:-1]:
        previous += read_difference(bits, k)
        require(1 <= previous <= 15, "codes of 1 to 15 bits")
        lengths[symbol] = previous
    if len(symbols) == 1:
        lengths[symbols[0]] = 1
    elif symbols:
        room = (1 << 15) - sum(1 << 15 - length for length in lengths if length)
        require(room > 0 and room & (room - 1) == 0, "a complete code")
        lengths[symbols[-1]] = 16 - room.bit_length()
    source.take(bits.end())
    return lengths


def read_huffman(source: Bytes, count: int, lengths: Lengths) -> list[int]:
    """Symbols in a Huffman code, in one lane or several (section 7.2)."""
    order = sorted((length, symbol) for symbol, length in enumerate(lengths) if length)
    if len(order) < 2:
        require(count == 0 or bool(order), "a symbol to choose")
        return [symbol for _, symbol in order] * count
    codes, code, before = {}, 0, 0
    for length, symbol in order:
        code <<= length - before
        codes[length, code] = symbol
        code, before = code + 1, length
    short = sum(length << 15 - length for length, _ in order) < 6 << 15
    number = 1 if count < 1 << 14 else 6 if short else 8
    heads = [[source.varint() for _ in range(2 if number == 6 else 1)] for _ in range(number - 1)]
    symbols, end = [0] * count, count
    for i in range(number):
        data = source.take(heads[i][-1] if i < number - 1 else len(source.data) - source.at)
        start = end - heads[i][0] if number == 6 and i < 5 else 0
        require(start >= 0, "no more symbols than there are")
        places = range(i, count, 8) if number == 8 else range(start, end)
        bits, end = Bits(data), start
        for place in reversed(places):
            length, code = 0, 0
            while (length, code) not in codes:
                length, code = length + 1, code << 1 | bits.bit()
            symbols[place] = codes[length, code]
        require(bits.end() == len(data), "no bytes after the last code of a lane")
    return symbols


def read_weights(source: Bytes, alphabet: int) -> Lengths:
    """A table of weights (section 7.3)."""
    bits = Bits(source.data[source.at :])
    k = bits.number(3)
    weights, previous = [0] * alphabet, 129
    for symbol in read_symbols_in_use(bits, alphabet):
        previous += read_difference(bits, k)
        require(1 <= previous <= 129, "weights of 1 to 129")
        weights[symbol] = previous
    source.take(bits.end())
    return weights


def slots_of(weights: Lengths) -> tuple[list[int], int]:
    """How many slots each symbol of a rANS code has, and the logarithm of their number (section 7.3)."""
    bits = 12 if sum(map(bool, weights)) <= 256 else 14
    shares = [8 + (w - 1) % 8 << (w - 1) // 8 if w else 0 for w in weights]

    def given(scale: int) -> list[int]:
        return [max(share * scale + (1 << 31) >> 32, 1) if share else 0 for share in shares]

    low, high = 0, (1 << 32 + bits) // sum(shares)
    if sum(given(high)) > 1 << bits:
        while low + 1 < high:
            middle = (low + high) // 2
            low, high = (low, middle) if sum(given(middle)) > 1 << bits else (middle, high)
        high = low
    slots = given(high)
    slots[slots.index(max(slots))] += (1 << bits) - sum(slots)
    return slots, bits


def read_rans(source: Bytes, count: int, weights: Lengths) -> list[int]:
    """Symbols in a rANS code (section 7.3)."""
    used = [symbol for symbol, weight in enumerate(weights) if weight]
    if len(used) < 2:
        require(count == 0 or bool(used), "a symbol to choose")
        return used * count
    slots, bits = slots_of(weights)
    places = [0] * (1 << bits)
    dealt = itertools.chain.from_iterable(itertools.repeat(symbol, slots[symbol]) for symbol in used)
    for number, symbol in enumerate(dealt):
        places[number * (5 * (1 << bits) // 8 + 3) % (1 << bits)] = symbol
    table, following = [], list(slots)
    for symbol in places:
        table.append((symbol, following[symbol]))
        following[symbol] += 1
    many = count >= 1 << 14
    first = source.take(source.varint()) if many else b""
    last = source.take(len(source.data) - source.at)
    runs = [Bits(first), Bits(last)] if many else [Bits(last)]
    states = []
    for run in runs:
        require(any(run.data[:1]), "a bit that says where a run begins")
        while not run.bit():
            pass
        states += [run.number(bits) for _ in range(4 if many else 1)][::-1]
    symbols = [0] * count
    for place in reversed(range(count)):
        lane = place % len(states)
        symbol, state = table[states[lane]]
        symbols[place] = symbol
        read = bits + 1 - state.bit_length()
        states[lane] = (state << read) + runs[lane // 4].number(read) - (1 << bits)
    require(not any(states), "a rANS code that ends where it began")
    require(all(8 * len(run.data) == run.at for run in runs), "no bits after a rANS code")
    return symbols


def read_fixed(source: Bytes, count: int, width: int) -> list[int]:
    """Numbers of a fixed width (section 7.1)."""
    bits = Bits(source.take((count * width + 7) // 8))
    numbers = [bits.number(width) for _ in range(count)]
    bits.end()
    return numbers


def logistic_tables() -> tuple[list[int], list[int]]:
    """SQUASH by log odds + 3071, and STRETCH by probability / 16 (section 10)."""
    power, upper = 1 << 64, []
    for _ in range(3072):
        upper.append(min(65535, (power << 16) // (power + (1 << 64))))
        power = power * 18518942588666869714 >> 64
    squashed = [65536 - p for p in upper[:0:-1]] + upper
    return squashed, [next(i for i, p in enumerate(squashed) if p >= 16 * j + 8) - 3071 for j in range(4096)]


SQUASH, STRETCH = logistic_tables()
RATES = [(2 << 16) // (2 * n + 3) for n in range(1024)]


class Chance:
    """An adaptive probability of a 1 in 2**-22, and how often it was adapted (section 10)."""

    def __init__(self, limit: int, value: int = 1 << 21, updates: int = 0) -> None:
        self.limit, self.value, self.updates = limit, value, updates

    def p(self) -> int:
        """In 2**-16."""
        return self.value >> 6

    def odds(self) -> int:
        """Logarithm of the odds in 2**-8."""
        return STRETCH[self.value >> 10]

    def adapt(self, bit: int) -> None:
        """Move towards a bit."""
        aim = (1 << 22) - 64 if bit else 64
        self.value += (aim - self.value) * RATES[self.updates] >> 16
        self.updates = min(self.updates + 1, self.limit)


class Arithmetic:
    """The binary range decoder (section 10)."""

    def __init__(self, data: bytes) -> None:
        require(data[-1:] != b"\0", "no zero byte at the end of a code")
        self.data, self.at, self.code, self.span = data, 0, 0, WIDE
        self.code = self.word() << 32 | self.word()

    def word(self) -> int:
        """The next four bytes, highest first; zeros after the end."""
        self.at += 4
        return int.from_bytes(self.data[self.at - 4 : self.at].ljust(4, b"\0"), "big")

    def refill(self) -> None:
        """Take four bytes in where the span is short."""
        if self.span <= WORD:
            self.code, self.span = (self.code << 32 | self.word()) & WIDE, self.span << 32

    def bit(self, p: int) -> int:
        """A bit that is 1 with probability p in 2**-16."""
        bound = (self.span >> 16) * p
        bit = int(self.code < bound)
        self.code, self.span = (self.code, bound) if bit else (self.code - bound, self.span - bound)
        self.refill()
        return bit

    def adaptive(self, chance: Chance) -> int:
        """A bit by one adaptive probability."""
        bit = self.bit(chance.p())
        chance.adapt(bit)
        return bit

    def mixed(self, chances: list[Chance], weights: list[int], rate: int, given: int | None = None) -> int:
        """A bit by several, mixed; or what a given bit teaches."""
        odds = [chance.odds() for chance in chances]
        return self.mixed_odds(chances, odds, weights, rate, given)

    def mixed_odds(
        self, chances: list[Chance], odds: list[int], weights: list[int], rate: int, given: int | None = None
    ) -> int:
        """The same with the log odds given, for those of which the sign is turned."""
        total = sum(w * o for w, o in zip(weights, odds, strict=True)) >> 16
        p = SQUASH[min(max(total, -3071), 3071) + 3071]
        bit = self.bit(p) if given is None else given
        for i, o in enumerate(odds):
            weights[i] += o * ((bit << 16) - p) >> rate
        for chance in chances:
            chance.adapt(bit)
        return bit

    def end(self) -> None:
        """Nothing is left."""
        require(len(self.data) <= self.at, "no bytes after a code")


class Lazy(dict):
    """Adaptive probabilities that are made when they are first asked for."""

    def __init__(self, limit: int, updates: int = 0) -> None:
        super().__init__()
        self.limit, self.updates = limit, updates

    def __missing__(self, key: object) -> Chance:
        self[key] = Chance(self.limit, updates=self.updates)
        return self[key]


MIX = 0x9E3779B97F4A7C15


def read_text(data: bytes, size: int) -> bytes:
    """The header, before the text model (section 4)."""
    if data[0] == 0:
        require(len(data) == size + 1, "plain text of its size")
        return data[1:]
    require(data[0] == 1, "text that is plain or coded")
    source = Arithmetic(data[1:])
    tables = [Lazy(limit) for limit in (250, 120, 60, 40, 30)]
    repeated = Lazy(250)
    weights = [[22000] * 6 for _ in range(32)]
    places: dict[int, int] = {}
    text, last, match, length = bytearray(), 0, 0, 0
    for i in range(len(PRIMER) + size):
        bases = [0] + [
            ((last & (1 << 8 * order) - 1) + order) * MIX % (1 << 64) >> 30 for order in range(1, 5)
        ]
        expected = text[match] | 256 if length else 0
        node = 1
        for depth in range(8):
            agrees = length > 0 and expected >> 8 - depth == node
            row = min(length, 31) if agrees else 0
            foretold = expected >> 7 - depth & 1
            slots = [(base + node * 0x2F0B4C47) % (1 << 16) for base in bases]
            chances = [table[slot] for table, slot in zip(tables, slots, strict=True)]
            odds = [chance.odds() for chance in chances]
            surely = repeated[row].odds() if agrees else 0
            odds.append(surely if foretold else -surely)
            given = PRIMER[i] >> 7 - depth & 1 if i < len(PRIMER) else None
            bit = source.mixed_odds(chances, odds, weights[row], 14, given)
            if agrees:
                repeated[row].adapt(int(bit == foretold))
            node = node << 1 | bit
        value = node & 255
        text.append(value)
        last = (last << 8 | value) % (1 << 64)
        key = (last % (1 << 40)) * MIX % (1 << 64) >> 48
        if length and text[match] == value:
            length, match = min(length + 1, 31), match + 1
        else:
            match = places.get(key, 0)
            length = int(match > 0)
        places[key] = i + 1
    source.end()
    return bytes(text[len(PRIMER) :])


class Values:
    """The section of values (section 5)."""

    def __init__(self, data: bytes) -> None:
        self.source = Arithmetic(data)
        self.groups: dict[tuple[int, str], int] = {}
        self.starts, self.follows, self.lows = Lazy(60), Lazy(60), Lazy(400)
        self.weights: dict[tuple[int, int, int], list[int]] = {}

    def item(self, dtype: int, count: int, leaf: str) -> bytes:
        """The next item."""
        group = self.groups.setdefault((dtype, leaf), min(len(self.groups), 15))
        part = PARTS.get(dtype, dtype)
        size = np.dtype(STORAGE[part]).itemsize
        count *= np.dtype(STORAGE[dtype]).itemsize // size
        found, history = b"", [0, 0, 0]
        for i in range(count):
            guesses = [
                history[0],
                self.line(history[0], history[1], 1, 8 * size, part),
                self.line(history[1], history[2], 2, 8 * size, part),
            ]
            value = self.element(group, 8 * size, guesses, i == 0)
            history = [value, *history[:2]]
            found += value.to_bytes(size, "little")
        return found

    def line(self, near: int, far: int, ahead: int, width: int, dtype: int) -> int:
        """What the line through two elements leads to."""
        if dtype in (1, 3):
            shift = 16 if dtype == 3 else 0
            with np.errstate(all="ignore"):
                near, far = (np.array(word << shift, "<u4").view("<f4").astype("<f8") for word in (near, far))
                value = ((ahead + 1.0) * near - float(ahead) * far).astype("<f4")
            return 0 if np.isnan(value) else int(value.view("<u4")) >> shift
        top, mask = 1 << width - 1, (1 << width) - 1
        floats = dtype in FLOATS
        keys = [~word & mask if floats and word & top else word ^ top for word in (near, far)]
        key = (keys[0] + ahead * (keys[0] - keys[1])) & mask
        return ~key & mask if floats and not key & top else key ^ top

    def element(self, group: int, width: int, guesses: list[int], first: bool) -> int:
        """The next element."""
        states, done = [0, 0, 0], 0  # agrees, under, over, far
        for depth in range(width):
            foretold = [guess >> width - 1 - depth & 1 for guess in guesses]
            if depth < 20:
                slot = (
                    (done | 1 << depth) + (group << 24) + (first << 28)
                    if depth < 15
                    else depth + (group << 24) + (1 << 29)
                )
                chances = [self.follows[g, group, depth, states[g], foretold[g]] for g in range(3)]
                chances.append(self.starts[slot * MIX % (1 << 64) >> 48])
                weights = self.weights.setdefault((group, depth, states[1]), [26000] * 4)
                bit = self.source.mixed(chances, weights, 14)
            else:
                tail = 1 + foretold[1] if states[1] == 0 else 0
                bit = self.source.adaptive(self.lows[group, depth, tail])
            for g, state in enumerate(states):
                if state == 0 and bit != foretold[g]:
                    states[g] = 1 if bit else 2
                elif state in (1, 2):
                    wanted = 0 if state == 1 else 1
                    if bit != wanted or foretold[g] == wanted:
                        states[g] = 3
            done = done << 1 | bit
        return done


def octaves(value: int) -> int:
    """A number on a scale of half octaves (section 8)."""
    count = value.bit_length()
    return count if count < 2 else 2 * count - 2 + (value >> count - 2 & 1)


def towards(mean: int, value: int, updates: int) -> int:
    """A mean after one more value."""
    return mean + ((value - mean) * RATES[updates] >> 16)


def read_tree(data: bytes, n: int, start: int, columns: int, kernel: int, zero: int, depth: int) -> list[int]:
    """Ranks coded as a tree (section 8.1)."""
    source = Arithmetic(data)
    dense, tree, loud = Lazy(1000), Lazy(1000, updates=4), Lazy(255)
    weights = [[1 << 14] * 4] + [[1 << 15] * 2 for _ in range(6)]
    densities: dict[int, int] = {}
    sizes: dict[int, int] = {}
    column = start % columns
    place = column % kernel
    density, size, all_density, all_size = 1 << 15, 8 << 6, 1 << 15, 8 << 6
    seen = kept = survivors = inside = before = 0
    ranks: list[int] = []
    for i in range(n):
        here = min(column, min(columns, 1 << 20) - 1)
        alive = 1
        if zero >= 0:
            other = densities.get(here, density)
            up = int(ranks[i - columns] != zero) if i >= columns else 2
            up2 = int(ranks[i - 2 * columns] != zero) if i >= 2 * columns else 2
            joint = min(density * other // max(all_density, 64), 65535)
            filled = inside * 31 // place if place else 32 + (before >> kernel - 1 & 1 if kernel < 64 else 0)
            chances = [
                dense[0, joint >> 10],
                dense[1, density >> 11, before & 7],
                dense[2, other >> 11, up, up2],
                dense[3, min(place, 63), filled],
            ]
            alive = source.mixed(chances, weights[0], 16)
            target = 65535 * alive
            density = towards(density, target, seen)
            all_density = towards(all_density, target, min(i, 1023))
            densities[here] = towards(other, target, 11) if here in densities else target + density >> 1
            seen = min(seen + 1, 127)
        rank = zero
        if alive:
            level = sizes.get(here, size)
            by_size = min(octaves((size + level << 9) // max(all_size, 1)), 63)
            node = 1
            for step in range(depth):
                if step < 6:
                    bit = source.mixed([tree[node], loud[node, by_size]], weights[1 + step], 16)
                else:
                    bit = source.adaptive(tree[node])
                node = node << 1 | bit
            rank = node - (1 << depth)
            m = abs(rank - max(zero, 0)) << 6
            size = towards(size, m, min(kept, 127))
            all_size = towards(all_size, m, min(survivors, 1023))
            sizes[here] = towards(level, m, 15) if here in sizes else m + size >> 1
            kept, survivors = kept + 1, survivors + 1
        ranks.append(rank)
        before = (before << 1 | alive) & WIDE
        inside, column, place = inside + alive, column + 1, place + 1
        if place == kernel:
            place = inside = 0
        if column == columns:
            column = place = seen = kept = inside = before = 0
    source.end()
    return ranks


class LevelCode:
    """One of the codes of section 8.2, which adapts by steps."""

    def __init__(self, number: int, tokens: int) -> None:
        least = (2 | number & 1) << number // 2 - 1 if number > 1 else number
        mean = max(least * 5 >> 2, 1)
        more = [(mean << 32) // (mean + 64)]
        while len(more) < 14:
            more.append(more[-1] * more[-1] >> 32)
        self.counts, left = [], 1 << 31
        for token in range(tokens):
            rest = left * more[below(token)] >> 32
            self.counts.append((left - rest >> 22) + 1)
            left = rest
        self.uses = self.left = 0

    def use(self) -> None:
        """Give out slots where it is time to."""
        if self.left == 0:
            self.uses = self.left = min(max(2 * self.uses, 16), 8192)
            if sum(self.counts) >> 20:
                self.counts = [count >> 1 for count in self.counts]
            free, total = 4096 - len(self.counts), sum(self.counts)
            self.sizes = [count * free // total + 1 for count in self.counts]
            self.sizes[self.sizes.index(max(self.sizes))] += 4096 - sum(self.sizes)
            self.slots = [(token, place) for token, size in enumerate(self.sizes) for place in range(size)]
        self.left -= 1


def below(token: int) -> int:
    """Bits of a magnitude that are not in its token (section 8.2)."""
    return token // 4 - 2 if token >= 16 else 0


def read_levels(
    data: bytes, n: int, start: int, columns: int, centre: int, *, trellis: bool = False
) -> list[int]:
    """Ranks coded as levels (section 8.2), or indices of levels along a trellis (8.3)."""
    source = Bytes(data)
    tokens = source.byte()
    require(1 <= tokens <= 64, "1 to 64 tokens")
    if tokens == 1:
        require(len(data) == 1, "no bytes after levels that are all 0")
        return [centre] * n
    stream, bits = Bytes(source.take(source.varint())), Bits(data, 8 * source.at)
    states = [int.from_bytes(stream.take(4), "little") for _ in range(4 if n >= 1 << 14 else 1)]
    codes: dict[tuple[int, int], LevelCode] = {}
    means: dict[int, int] = {}
    paths = [0] * columns if trellis else []
    column, mean, group, ranks = start % columns, 64, [], []
    for i in range(n):
        if column % 4 == 0:
            if column and len(group) == 4:
                mean = towards(mean, 16 * sum(group), min(column // 4 - 1, 31))
            group = []
        here = min(column, min(columns, 1 << 20) - 1)
        other = means.get(here, mean)
        number = octaves(mean + other >> 1)
        odd = paths[column] & 1 if trellis else 0
        code = codes.setdefault((number, odd if number < 16 else 0), LevelCode(number, tokens))
        code.use()
        state = states[i % len(states)]
        token, place = code.slots[state % 4096]
        state = code.sizes[token] * (state >> 12) + place
        if state < 1 << 15:
            state = state << 16 | int.from_bytes(stream.take(2), "little")
        states[i % len(states)] = state
        code.counts[token] += 16
        high = token if token < 16 else (4 | token % 4) << below(token)
        size = high + bits.number(below(token))
        minus = bits.bit() if size else 0
        magnitude = max(2 * size - odd, 0) if trellis else size
        ranks.append((centre - magnitude if minus else centre + magnitude) % (1 << 16))
        if trellis:
            paths[column] = paths[column] >> 1 ^ 18 * odd ^ 4 * (size & 1)
        group.append(size)
        means[here] = towards(other, 64 * size, 15) if here in means else 64 * size + mean >> 1
        column = (column + 1) % columns
    require(states == [1 << 15] * len(states), "a rANS code that ends where it began")
    require(stream.at == len(stream.data) and bits.end() == len(data), "no bytes after the last level")
    return ranks


class Shared:
    """A tensor stored as a codebook and indices, as its columns of the header describe it."""

    def __init__(self, source: Bytes, codes: list[Code]) -> None:
        self.arrangement = source.byte()
        require(self.arrangement < 6, "an arrangement of 0 to 5")
        self.entries = source.varint()
        self.index_code: Code = None
        if self.arrangement < 4:
            self.index_code = read_choice(source, codes, self.entries)
        if self.arrangement == 1:
            self.gap_bits = source.byte()
            require(1 <= self.gap_bits <= 16, "gaps of 1 to 16 bits")
            self.gap_code = read_choice(source, codes, 1 << self.gap_bits)

    def read_blocks(self, blocks: list[bytes], codebook: np.ndarray, shape: list[int]) -> np.ndarray:
        """The elements."""
        n = math.prod(shape)
        words = codebook.view(f"<u{codebook.itemsize}")
        zeros = np.flatnonzero(words == 0)
        self.zero = int(zeros[0]) if len(zeros) else -1
        require(self.arrangement in (0, 4) or len(zeros) > 0, "an entry 0.0")
        top = words.dtype.type(1 << 8 * words.itemsize - 1)
        self.order = np.argsort(np.where(words & top, ~words, words | top), kind="stable")
        self.rows, self.columns = (shape[0], math.prod(shape[1:])) if len(shape) > 1 else (1, n)
        self.kernel = math.prod(shape[2:])
        step = max(n, 1) if self.arrangement in (2, 3) else BLOCK
        indices: list[int] = []
        for start, block in zip(range(0, n, step), blocks, strict=True):
            indices += self.read(block, start, min(step, n - start))
        flat = np.array(indices, np.int64)
        flat = flat.reshape(self.columns, self.rows).T if self.arrangement == 3 else flat
        return codebook[flat].reshape(shape)

    def read(self, block: bytes, start: int, n: int) -> list[int]:
        """The indices of one block of n elements (section 6)."""
        if self.arrangement == 4:
            return self.from_context(block, start, n)
        if self.arrangement == 5:
            require(self.columns <= 1 << 20, "rows of at most 2**20 elements")
            indices = read_levels(block, n, start, max(self.columns, 1), self.zero, trellis=True)
            require(max(indices) < self.entries, f"indices under {self.entries}")
            return indices
        source, kept, places = Bytes(block), n, list(range(n))
        if self.arrangement:
            kept = source.varint()
            places = self.from_gaps(source, kept) if self.arrangement == 1 else self.from_matrix(source, kept)
        symbols = read_symbols(Bytes(block[source.at :]), kept, self.index_code, self.entries)
        require(sorted({-1, *places, n}) == [-1, *places, n], "rising places within the block")
        out = [self.zero] * n
        for place, symbol in zip(places, symbols, strict=True):
            out[place] = symbol
        return out

    def from_gaps(self, source: Bytes, kept: int) -> list[int]:
        """Places of survivors and fillers."""
        size = source.varint() if self.gap_code is not None else (kept * self.gap_bits + 7) // 8
        gaps = read_symbols(Bytes(source.take(size)), kept, self.gap_code, 1 << self.gap_bits)
        return [int(place) for place in np.cumsum(np.array(gaps, np.int64) + 1) - 1]

    def from_matrix(self, source: Bytes, kept: int) -> list[int]:
        """Places of survivors in CSR or CSC."""
        if not kept:
            return []
        lines, across = (self.rows, self.columns) if self.arrangement == 2 else (self.columns, self.rows)
        pointers = read_fixed(source, lines + 1, kept.bit_length())
        within = read_fixed(source, kept, max(across - 1, 0).bit_length())
        require(pointers[0] == 0 and pointers[-1] == kept and sorted(pointers) == pointers, "rising pointers")
        require(all(place < across for place in within), "places within their row")
        return [i * across + p for i in range(lines) for p in within[pointers[i] : pointers[i + 1]]]

    def from_context(self, block: bytes, start: int, n: int) -> list[int]:
        """Indices coded by context (section 8)."""
        columns, kernel = max(self.columns, 1), max(self.kernel, 1)
        ranked = {int(entry): rank for rank, entry in enumerate(self.order)}
        zero = ranked[self.zero] if self.zero >= 0 else -1
        require(block[:1] in (b"\0", b"\1"), "a block coded as a tree or as levels")
        if block[0] == 1:
            centre = zero if zero >= 0 else self.entries // 2
            ranks = read_levels(block[1:], n, start, columns, centre)
        else:
            depth = max(self.entries - 1, 0).bit_length()
            ranks = read_tree(block[1:], n, start, columns, kernel, zero, depth)
        require(max(ranks) < self.entries, f"ranks under {self.entries}")
        return [int(self.order[rank]) for rank in ranks]


def read_symbols(source: Bytes, count: int, code: Code, limit: int) -> list[int]:
    """Symbols under `limit`, of fixed width or in a code, to the end of `source`."""
    if code is None:
        symbols = read_fixed(source, count, max(limit - 1, 0).bit_length())
    else:
        symbols = (read_huffman if code[0] == "huffman" else read_rans)(source, count, code[1])
    require(source.at == len(source.data), "no bytes after the last symbol")
    require(max(symbols, default=-1) < limit, f"symbols under {limit}")
    return symbols


def read_code(source: Bytes, kind: int, alphabet: int) -> Code:
    """A code of kind 0, Huffman, or 1, rANS, behind the size of its table."""
    require(kind < 2, "a code of kind 0 or 1")
    table = Bytes(source.take(source.varint()))
    numbers = (read_lengths, read_weights)[kind](table, alphabet)
    require(table.at == len(table.data), "no bytes after a table")
    return ("huffman", "rans")[kind], numbers


def read_choice(source: Bytes, codes: list[Code], alphabet: int) -> Code:
    """Which code a stream has: fixed width (None), one of its own, or one of the file's."""
    choice = source.varint()
    require(choice < 3 + len(codes), "a table that exists")
    if choice >= 3:
        return codes[choice - 3]
    return None if choice == 0 else read_code(source, choice - 1, alphabet)


def read_exact(data: bytes, n: int, dtype: int, base: bytes | None) -> bytes:
    """The elements of a block of an exact tensor (section 9)."""
    if not n:
        require(not data, "no bytes for no elements")
        return b""
    source, size = Bytes(data), np.dtype(STORAGE[dtype]).itemsize
    width = np.dtype(STORAGE[PARTS.get(dtype, dtype)]).itemsize
    floats, count = PARTS.get(dtype, dtype) in FLOATS, n * size // width
    turn = 2 if PARTS.get(dtype, dtype) in SHORT_EXPONENTS else int(floats)
    mask, top = (1 << 8 * width) - 1, 1 << 8 * width - 1
    mode = source.byte()
    if mode == 0:
        found = source.take(n * size)
    elif mode == 1:
        found = source.take(size) * n
    elif mode == 6:
        found = zlib.decompress(source.take(len(data) - 1))
    else:
        if mode == 2:
            words = read_planes(source, count, width, turn)
        elif mode == 3:
            words = [w & mask for w in itertools.accumulate(unfolded(read_planes(source, count, width, 0)))]
        elif mode == 4:
            require(base is not None, "the base it was stored against")
            before = [int(w) for w in np.frombuffer(base, f"<u{width}")]
            if floats:
                before = [~w & mask if w & top else w | top for w in before]
            changes = unfolded(read_planes(source, count, width, 0))
            words = [w + change & mask for w, change in zip(before, changes, strict=True)]
            if floats:
                words = [w ^ top if w & top else ~w & mask for w in words]
        else:
            require(mode == 5, "a block of mode 0 to 6")
            words = read_sparse(source, count, width, turn)
        found = b"".join(w.to_bytes(width, "little") for w in words)
    require(source.at == len(data) and len(found) == n * size, "a block of its size")
    return found


def unfolded(words: list[int]) -> list[int]:
    """Differences, from small numbers either way."""
    return [-(w + 1) // 2 if w % 2 else w // 2 for w in words]


def read_planes(source: Bytes, n: int, width: int, turn: int) -> list[int]:
    """Words that were cut into bytes, in pieces."""
    words: list[int] = []
    codes: list[Code] = [None] * width
    for start in range(0, n, 1 << 16):
        count = min(1 << 16, n - start)
        planes = [read_plane(source, count, codes, number) for number in range(width)]
        words += [int.from_bytes(bytes(w), "big") for w in zip(*planes, strict=True)]
    return [w >> turn | (w & (1 << turn) - 1) << 8 * width - turn for w in words]


def read_plane(source: Bytes, n: int, codes: list[Code], number: int) -> bytes:
    """Bytes of equal place; `codes` has the last one of each place."""
    kind = source.byte()
    require(kind < 5, "a plane of kind 0 to 4")
    if kind == 0:
        return source.take(n)
    if kind == 1:
        return source.take(1) * n
    if kind == 4:
        lowest = source.byte()
        require(lowest < 2, "a bit")
        packed, part = source.take(n - n // 8), n // 8
        plane = [byte << 1 & 0xFF | lowest for byte in packed[: 7 * part]]
        plane += [
            sum(packed[row * part + i] >> 7 << row + 1 for row in range(7)) | lowest for i in range(part)
        ]
        return bytes(plane) + packed[7 * part :]
    if kind == 2:
        code = codes[number] = read_code(source, 0, 256)
        lengths = [length for length in code[1] if length] if code else []
        require(len(lengths) > 1 and max(lengths) <= 11, "a code of two bytes or more, of up to 11 bits")
    require(codes[number] is not None, "a code that came before")
    return bytes(read_symbols(Bytes(source.take(source.varint())), n, codes[number], 256))


def read_sparse(source: Bytes, n: int, width: int, turn: int) -> list[int]:
    """Words of which those that are 0 were left out."""
    bits = Bits(bytes(read_planes(source, (n + 7) // 8, 1, 0)))
    kept = [bits.bit() for _ in range(n)]
    bits.end()
    mode, count = source.byte(), sum(kept)
    require(mode in (0, 2), "survivors stored or in planes")
    if mode == 2:
        survivors = iter(read_planes(source, count, width, turn))
    else:
        survivors = iter([int.from_bytes(source.take(width), "little") for _ in range(count)])
    return [next(survivors) if bit else 0 for bit in kept]


def read(
    data: bytes, base: dict[str, np.ndarray] | None = None
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Tensors and metadata of a file; extras come as tensors whose names begin with a NUL character."""
    require(data[:4] == b"\x89DWZ", "a .dwz file")
    require(data[4:5] in (b"\x01", b"\x02"), "version 1 or 2")
    file = Bytes(data, 5)
    size = file.varint()
    coded = file.take(file.varint())
    checked(data[: file.at], file)
    header = Bytes(read_text(coded, size))
    values_size = header.varint()
    metadata = {}
    for _ in range(header.varint()):
        key, value = header.take(header.varint()), header.take(header.varint())
        metadata[key.decode()] = value.decode()
    codes = [read_code(header, header.byte(), header.varint()) for _ in range(header.varint())]
    names = [header.take(header.varint()).decode() for _ in range(header.varint())]
    require(len(set(names)) == len(names), "each name once")
    kinds = [header.byte() for _ in names]
    require(max(kinds, default=0) < 7, "an entry kind of 0 to 6")
    heads = [header.varint() if kind > 4 else header.byte() for kind in kinds]
    shapes = [[header.varint() for _ in range(header.byte())] if kind < 5 else [] for kind in kinds]
    plans = [Shared(header, codes) if kind == 4 else None for kind in kinds]
    sizes = [
        read_sizes(header, kind, plan, math.prod(shape), STORAGE[head] if kind < 5 else "u1")
        for kind, plan, shape, head in zip(kinds, plans, shapes, heads, strict=True)
    ]
    require(header.at == size, "no bytes after the last column")
    needed = 2 if any(plan is not None and plan.arrangement == 5 for plan in plans) else 1
    require(data[4] == needed, f"version {needed}, by what the file holds")
    values = Values(checked(file.take(values_size), file) if values_size else b"")
    small = {}
    for name, kind, head, shape, plan in zip(names, kinds, heads, shapes, plans, strict=True):
        if kind == 3:
            small[name] = values.item(head, math.prod(shape), name.rpartition(".")[2])
        elif plan is not None:
            small[name] = values.item(head, plan.entries, "codebook")
    values.source.end()
    tensors: dict[str, np.ndarray] = {}
    for name, kind, head, shape, plan, blocks in zip(names, kinds, heads, shapes, plans, sizes, strict=True):
        if kind > 4:
            continue
        storage = np.dtype(STORAGE[head]).newbyteorder("<")
        found = [checked(file.take(block), file) for block in blocks]
        if plan is not None:
            tensors[name] = plan.read_blocks(found, np.frombuffer(small[name], storage), shape)
            continue
        raw = small[name] if kind == 3 else b"".join(found)
        if kind in (1, 2):
            before = None
            if kind == 2:
                require(base is not None and name in base, f"{name} in the base")
                before = np.ascontiguousarray(base[name]).tobytes()
            raw = read_coded(found, math.prod(shape), head, before)
        tensors[name] = np.frombuffer(raw, storage).reshape(shape)
    require(file.at == len(data), "no bytes after the last block")
    return {
        name: tensors[names[head]] if kind > 4 else tensors[name]
        for name, kind, head in zip(names, kinds, heads, strict=True)
    }, metadata


def read_sizes(source: Bytes, kind: int, plan: Shared | None, n: int, storage: str) -> list[int]:
    """Bytes of each block of a tensor."""
    if kind in (3, 5, 6):
        return []
    if kind == 0:
        return [min(BLOCK, n - start) * np.dtype(storage).itemsize for start in range(0, n, BLOCK)]
    whole = plan is not None and plan.arrangement in (2, 3)
    return [source.varint() for _ in range(min(n, 1) if whole else -(-n // BLOCK))]


def read_coded(blocks: list[bytes], n: int, dtype: int, base: bytes | None) -> bytes:
    """The coded blocks of an exact tensor, those of a difference behind the CRC of the base's block."""
    raw, size = b"", np.dtype(STORAGE[dtype]).itemsize
    for start, block in zip(range(0, n, BLOCK), blocks, strict=True):
        stop = min(n, start + BLOCK)
        before = None
        if base is not None:
            before = base[start * size : stop * size]
            require(
                zlib.crc32(before) == int.from_bytes(block[:4], "little"), "the base it was stored against"
            )
            block = block[4:]
        raw += read_exact(block, stop - start, dtype, before)
    return raw


def checked(data: bytes, source: Bytes) -> bytes:
    """`data`, compared with the CRC-32 that comes next."""
    require(zlib.crc32(data) == int.from_bytes(source.take(4), "little"), "bytes that match their checksum")
    return data


NAMES = """
features.0.weight features.0.bias features.3.weight classifier.1.weight classifier.6.bias
conv1.weight conv2.weight conv1.bias fc1.weight fc1.bias fc2.weight fc3.bias fc.weight fc.bias
bn1.weight bn1.bias bn1.running_mean bn1.running_var bn1.num_batches_tracked
layer1.0.conv1.weight layer1.0.bn1.weight layer1.0.bn1.bias layer1.0.bn1.running_mean layer1.0.bn1.running_var
layer2.0.downsample.0.weight layer3.1.bn2.num_batches_tracked layer4.2.bn3.weight
model.layers.0.self_attn.q_proj.weight model.layers.0.self_attn.k_proj.weight
model.layers.0.self_attn.v_proj.weight model.layers.1.self_attn.o_proj.weight
model.layers.1.mlp.gate_proj.weight model.layers.1.mlp.up_proj.weight model.layers.2.mlp.down_proj.weight
model.layers.2.input_layernorm.weight model.layers.2.post_attention_layernorm.weight
model.embed_tokens.weight model.norm.weight lm_head.weight
transformer.h.0.attn.c_attn.weight transformer.h.0.ln_1.bias
bert.encoder.layer.0.attention.self.query.weight encoder.layer.0.attention.self.key.bias
encoder.layer.1.attention.self.value.weight encoder.layer.1.attention.output.dense.bias
encoder.layer.2.attention.output.LayerNorm.weight encoder.layer.2.intermediate.dense.weight
encoder.layer.3.output.LayerNorm.bias encoder.layer.3.output.dense.weight
embeddings.word_embeddings.weight embeddings.position_embeddings.weight
embeddings.token_type_embeddings.weight embeddings.LayerNorm.weight embeddings.position_ids
pooler.dense.weight blocks.0.0.depthwise_conv.weight blocks.1._expand_conv.weight
_blocks.2._depthwise_conv.weight _blocks.2._bn1.bias _blocks.3._project_conv.weight _conv_stem.weight
_bn0.running_var _conv_head.weight _fc.bias se.fc1.weight stem.conv.weight head.weight
rnn.weight_ih_l0 lstm.weight_hh_l0 gru.bias_ih_l0 decoder.linear.weight in_proj_weight out_proj.bias
fire2/conv1x1_1.weight fire2/squeeze1x1.weight backbone.block1.norm1.weight 0.weight 2.weight net.0.0.bias
format pt
"""

PRIMER = b"".join(bytes([len(name)]) + name.encode() for name in NAMES.split())


def main() -> None:
    """List the tensors of a file, or write them as .npz."""
    parser = argparse.ArgumentParser(description="Decode a .dwz file.")
    parser.add_argument("file", type=Path)
    parser.add_argument("-o", "--output", type=Path, help="an .npz file to write")
    parser.add_argument("--base", type=Path, help="an .npz file of the tensors it holds differences from")
    arguments = parser.parse_args()
    try:
        base = dict(np.load(arguments.base)) if arguments.base else None
        tensors, _ = read(arguments.file.read_bytes(), base)
    except (ValueError, LookupError, zlib.error) as error:
        sys.exit(f"{arguments.file}: {error}")
    tensors = {name: values for name, values in tensors.items() if not name.startswith(EXTRA)}
    sys.stdout.writelines(f"{name}: {v.dtype} {list(v.shape)}\n" for name, v in tensors.items())
    if arguments.output:
        with zipfile.ZipFile(arguments.output, "w") as archive:
            for name, values in tensors.items():
                with archive.open(f"{name}.npy", "w") as stream:
                    np.lib.format.write_array(stream, values)


if __name__ == "__main__":
    main()
