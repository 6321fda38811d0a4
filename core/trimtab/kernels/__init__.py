"""The arithmetic that merge methods are made of, on the CPU and on a GPU, one slice at a time."""
