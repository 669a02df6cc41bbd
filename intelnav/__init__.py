"""IntelNav: one model, cut into slices, answered by a chain of peers."""

__version__ = "0.1.0"
