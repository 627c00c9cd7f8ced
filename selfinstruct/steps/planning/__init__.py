"""Before a training: what it will take of memory, time, money and power, and what fits."""
