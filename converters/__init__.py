"""Readers of other checkpoints: each writes a generator folder and runs nothing it reads."""
