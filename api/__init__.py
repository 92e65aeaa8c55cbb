"""HTTP in and out. Holds no state of its own."""
