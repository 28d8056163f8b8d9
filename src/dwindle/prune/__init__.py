"""Pruning: masks, thresholds, schedules, sensitivity."""
