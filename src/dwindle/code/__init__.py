"""Records to bytes and back, lossless."""
