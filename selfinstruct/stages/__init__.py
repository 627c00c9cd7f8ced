"""Stages: one module a stage. They meet only through the run folder."""
