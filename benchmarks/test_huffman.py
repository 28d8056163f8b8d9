"""Huffman and rANS coding under pytest-benchmark beside zstd, in the same run, one thread.

OMP_NUM_THREADS=1 pytest benchmarks/test_huffman.py --benchmark-only
"""

import pytest

pytest.importorskip("zstandard")

from benchmarks import huffman as bench

each = pytest.mark.parametrize("peer", ["huffman", "rans", "zstd"])


@pytest.fixture(scope="module", params=bench.STREAMS)
def peers(request):
    return bench.prepared(bench.STREAMS[request.param]())


@each
def test_decode(benchmark, peers, peer):
    assert benchmark.pedantic(bench.timed, (peers[peer].decode,), rounds=bench.REPEATS) > 0


@each
def test_encode(benchmark, peers, peer):
    assert benchmark.pedantic(bench.timed, (peers[peer].encode,), rounds=3) > 0
