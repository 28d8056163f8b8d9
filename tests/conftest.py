"""Settings of every test."""

import os

from hypothesis import settings

# Two workers run side by side on two cores; more threads than cores only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The same examples on every run, and no deadline: the first call of a kernel compiles it.
settings.register_profile("dwindle", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("dwindle")
