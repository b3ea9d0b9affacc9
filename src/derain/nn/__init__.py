"""Operators and blocks that several methods share, or that need to be fast."""
