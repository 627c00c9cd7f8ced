"""Filters: reasons to reject a candidate, one module a family."""
