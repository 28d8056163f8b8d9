"""Huffman coding under pytest-benchmark beside zstd, in the same run, one thread.

OMP_NUM_THREADS=1 pytest benchmarks/test_huffman.py --benchmark-only
"""

import pytest

pytest.importorskip("zstandard")

from benchmarks import huffman as bench


@pytest.fixture(scope="module", params=bench.STREAMS)
def peers(request):
    return bench.prepared(bench.STREAMS[request.param]())


@pytest.mark.parametrize("peer", ["dwindle", "zstd"])
def test_decode(benchmark, peers, peer):
    assert len(benchmark.pedantic(peers[peer][1], rounds=bench.REPEATS)) == bench.SYMBOLS


@pytest.mark.parametrize("peer", ["dwindle", "zstd"])
def test_encode(benchmark, peers, peer):
    assert len(benchmark.pedantic(peers[peer][0], rounds=3)) < bench.SYMBOLS
