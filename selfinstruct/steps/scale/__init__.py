"""Near-duplicates over more rows than memory holds, as Daft dataframes."""
