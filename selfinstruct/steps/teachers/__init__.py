"""Teachers: what answers requests."""
