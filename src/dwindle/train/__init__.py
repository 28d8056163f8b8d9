"""Fitting and evaluating reference networks."""
