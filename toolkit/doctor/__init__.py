"""What works here, shown by computing with it: one finding a backend, each with what mends it."""
