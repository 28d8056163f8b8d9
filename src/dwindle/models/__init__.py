"""Reference networks."""

from dwindle.models.lenet import LeNet5, LeNet300
from dwindle.models.pretrained import reference_checkpoint
from dwindle.models.registry import NAMES, build

__all__ = ["NAMES", "LeNet5", "LeNet300", "build", "reference_checkpoint"]
