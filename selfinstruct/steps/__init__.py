"""Steps: teachers, strategies, filters, readers and prices.

They take plain arguments and know no run.
"""
