"""Restoring on many machines, with Ray Data."""
