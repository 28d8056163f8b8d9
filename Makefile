# Two commands do everything from a fresh clone: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint types bench results clean
.DEFAULT_GOAL := test

# torch goes first, and pinned, so that no other requirement draws in its CUDA build.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test,dev]'
	touch $@

$(VENV)/.bench: $(VENV)/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	touch $@

demo: $(VENV)/.installed
	$(BIN)/dwindle demo

test: $(VENV)/.installed
	$(BIN)/pytest -n 2

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed
	$(BIN)/mypy

# Speeds against named peers, by hand: timings mean little on a busy machine.
bench: $(VENV)/.bench
	$(BIN)/pytest benchmarks --benchmark-only

# What is committed under results/, made again; hours on two cores. Some of it takes what others released: the
# authors' SqueezeNet with its prototxt, two checkpoints, and interpreters that have zipnn 0.5.4 and nncodec 2.1.3.
SONGHAN ?= data/songhan
EFFICIENTNET ?= data/efficientnet-lite0.safetensors
MINILM ?= data/minilm.safetensors
SENTENCES ?= data/minilm
PICTURES ?= data/imagenet-sample
ZIPNN ?= .peers/zipnn/bin/python
NNCODEC ?= .peers/nncodec/bin/python

results: $(VENV)/.bench
	$(BIN)/python -m benchmarks.lenets lenet-300-100-paper --json results/lenet-300-100-paper.json
	$(BIN)/python -m benchmarks.lenets lenet-5-paper --json results/lenet-5-paper.json
	$(BIN)/python -m benchmarks.bound --json results/bound-lenet-300-100.json
	$(BIN)/python -m benchmarks.networks --network alexnet --json results/alexnet.json
	$(BIN)/python -m benchmarks.networks --network vgg-16 --json results/vgg-16.json
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.kmeans --json results/kmeans.json
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.huffman --net $(SONGHAN) --model $(EFFICIENTNET) \
		--json results/huffman.json
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.levels $(EFFICIENTNET) --peer $(NNCODEC) --json results/levels.json
	$(BIN)/python -m benchmarks.squeezenet $(SONGHAN) --json results/squeezenet.json
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.lossless $(MINILM) --peer $(ZIPNN) --json results/lossless-minilm.json
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.lossless $(EFFICIENTNET) --peer $(ZIPNN) \
		--json results/lossless-efficientnet-lite0.json
	$(BIN)/python -m benchmarks.efficientnet --images $(PICTURES) --peer $(NNCODEC) \
		--json results/efficientnet-lite0.json
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.sentences $(SENTENCES) --json results/sentences.json
	$(BIN)/python -m benchmarks.codebooks --json results/codebooks.json
	$(BIN)/python -m benchmarks.fuzz --files 1000000 --json results/fuzz.json
	NUMBA_BOUNDSCHECK=1 $(BIN)/python -m benchmarks.fuzz --files 50000 --seed 1 --json results/fuzz-boundscheck.json
	$(BIN)/python -m benchmarks.stream --json results/stream.json
	$(BIN)/dwindle sensitivity --model lenet-300-100 -o results
	$(BIN)/dwindle sensitivity --model lenet-5 -o results

clean:
	rm -rf $(VENV) build dist runs src/*.egg-info
