"""Masks: which entries of a task vector survive, as files, as a stack, and how they are made."""
