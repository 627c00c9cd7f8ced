"""Scores: numbers that say something of one record by itself."""
