"""Data sets for the reference networks."""

from dwindle.data.mnist import Mnist, mnist
from dwindle.data.pixels import pixels
from dwindle.data.shift import shift
from dwindle.data.split import split

__all__ = ["Mnist", "mnist", "pixels", "shift", "split"]
