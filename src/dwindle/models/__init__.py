"""Reference networks."""

from dwindle.models.alexnet import AlexNet
from dwindle.models.lenet import LeNet5, LeNet300
from dwindle.models.pretrained import reference_checkpoint
from dwindle.models.registry import DATA, NAMES, build
from dwindle.models.resnet import ResNet50
from dwindle.models.vgg import VGG16

__all__ = [
    "DATA",
    "NAMES",
    "VGG16",
    "AlexNet",
    "LeNet5",
    "LeNet300",
    "ResNet50",
    "build",
    "reference_checkpoint",
]
