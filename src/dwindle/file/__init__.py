"""The .dwz container."""
