"""Reading human-written examples: files, rows, layouts, seed tasks. Start at `reader`."""
