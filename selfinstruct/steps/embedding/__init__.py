"""Texts as vectors, and what is computed on them."""
