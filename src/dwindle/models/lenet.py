"""The paper's two MNIST networks."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class LeNet300(nn.Module):
    """LeNet-300-100: two hidden layers with ReLU, 266,610 parameters (LeCun et al. 1998).

    Args:
        dropout: rate of the dropout after each hidden layer, at work in training mode only.
    """

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(784, 300)
        self.drop1 = nn.Dropout(dropout)
        self.fc2 = nn.Linear(300, 100)
        self.drop2 = nn.Dropout(dropout)
        self.fc3 = nn.Linear(100, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, shape (N, 10), of images of shape (N, 1, 28, 28)."""
        x = self.drop1(functional.relu(self.fc1(x.flatten(1))))
        x = self.drop2(functional.relu(self.fc2(x)))
        logits: Tensor = self.fc3(x)
        return logits


class LeNet5(nn.Module):
    """LeNet-5 in the shape Caffe gave it: 431,080 parameters, no padding, 2x2 max pooling.

    As in Caffe the convolutions are followed by pooling alone; the one ReLU is that between fc1 and fc2.

    Args:
        dropout: rate of the dropout before fc1 and before fc2, at work in training mode only.
    """

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 20, 5)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.drop1 = nn.Dropout(dropout)
        self.fc1 = nn.Linear(800, 500)
        self.drop2 = nn.Dropout(dropout)
        self.fc2 = nn.Linear(500, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, shape (N, 10), of images of shape (N, 1, 28, 28)."""
        # On a CPU pooling and the second convolution take half the time with the channels last.
        x = functional.max_pool2d(self.conv1(x).contiguous(memory_format=torch.channels_last), 2)
        x = functional.max_pool2d(self.conv2(x), 2)
        x = functional.relu(self.fc1(self.drop1(x.flatten(1))))
        logits: Tensor = self.fc2(self.drop2(x))
        return logits
