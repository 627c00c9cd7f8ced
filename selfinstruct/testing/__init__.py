"""What tests, dry runs and benchmarks need: fake servers that speak the real protocols."""
