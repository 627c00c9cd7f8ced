"""Publishing: what goes to the Hub, its cards, and the scan that it has to pass."""
