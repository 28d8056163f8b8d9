"""Data sets for the reference networks."""

from dwindle.data.examples import Examples, ImageExamples, image_examples
from dwindle.data.images import Images, images
from dwindle.data.mnist import Mnist, mnist
from dwindle.data.pixels import pixels
from dwindle.data.preprocessing import PREPROCESSINGS, Preprocessing
from dwindle.data.shift import shift
from dwindle.data.split import split

__all__ = [
    "PREPROCESSINGS",
    "Examples",
    "ImageExamples",
    "Images",
    "Mnist",
    "Preprocessing",
    "image_examples",
    "images",
    "mnist",
    "pixels",
    "shift",
    "split",
]
