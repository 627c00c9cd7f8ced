"""Rules: faults that one record shows by itself, each a function from a record to what it found."""
