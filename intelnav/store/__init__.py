"""A model on disk: reading, cutting and naming it."""
