"""Hot loops: NumPy arrays in and out, compiled by numba; nothing else."""
