"""The engine: the ledger, the dispatcher and the run folder."""
