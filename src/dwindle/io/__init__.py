"""Checkpoints <-> records: safetensors (sharded too), torch and npz files."""

from dwindle.io.checkpoint import Checkpoint, read_checkpoint, write_checkpoint

__all__ = ["Checkpoint", "read_checkpoint", "write_checkpoint"]
