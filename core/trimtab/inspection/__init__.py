"""What one read of a lineup tells about it."""
