"""Calibration: what each tensor of a network matters, from a few inputs without labels, and bits by it."""

from dwindle.calibrate.measure import CalibratedTensor, Calibration, Measured

__all__ = ["CalibratedTensor", "Calibration", "Measured"]
