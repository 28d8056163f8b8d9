"""Weight sharing: k-means, codebooks, bits per layer."""
