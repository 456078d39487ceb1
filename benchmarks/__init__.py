"""Contests against the authors' code, and reports of GPUs. Not installed with the package."""
