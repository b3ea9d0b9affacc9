"""Operators and blocks that several methods use, or that are hot."""
