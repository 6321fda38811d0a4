"""A model run block by block on calibration text, its weights streamed from disk."""
