"""How varied a set of records is, by itself and beside another."""
