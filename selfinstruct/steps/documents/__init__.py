"""Documents: a shelf of files as passages that a teacher can be asked about."""
