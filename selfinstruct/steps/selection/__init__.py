"""Which records of a dataset to keep, when there are more than are wanted."""
