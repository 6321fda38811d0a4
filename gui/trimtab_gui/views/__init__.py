"""The panels of the window; each listens to the desk and none knows another."""
