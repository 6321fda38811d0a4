"""Recipes, the plan they give, and the stream that carries it out."""
