"""Near-duplicates over more rows than memory holds: tasks over files, here or on a cluster."""
