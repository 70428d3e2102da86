"""Readers of other projects' checkpoints: each writes a generator folder and runs nothing it reads."""
