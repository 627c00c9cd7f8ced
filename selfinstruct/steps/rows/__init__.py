"""Rows of any dataset, in and out, as they are: read in chunks, judged elsewhere, written again."""
