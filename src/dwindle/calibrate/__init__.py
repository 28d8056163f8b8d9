"""Calibration: what each tensor of a network matters, from a few inputs without labels, and bits by it."""

from dwindle.calibrate.apply import CalibratedTensor, Calibration, calibrate

__all__ = ["CalibratedTensor", "Calibration", "calibrate"]
