"""Costs: prices of models, and what a run will take before it is spent."""
