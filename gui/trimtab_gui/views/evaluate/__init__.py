"""The Evaluate place: what is asked of whom, what came out, and how sure it is."""
