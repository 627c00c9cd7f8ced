"""Strategies: how requests are made and how their completions are parsed."""
