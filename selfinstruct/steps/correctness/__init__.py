"""Checks of outputs that can be checked: sums, equations, formats, code, labels."""
