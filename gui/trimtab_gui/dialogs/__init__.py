"""The few things that stand before the window instead of in it."""
