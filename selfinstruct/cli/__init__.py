"""The command line: one module a command, which parses, calls a stage and prints."""
