"""Checkpoints <-> records: safetensors (in shards too), torch, npz and the paper's authors' own files."""

from dwindle.io.checkpoint import Checkpoint, is_folder, read_checkpoint, write_checkpoint

__all__ = ["Checkpoint", "is_folder", "read_checkpoint", "write_checkpoint"]
