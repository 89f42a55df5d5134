"""Recipes that ship with the package; a run leaves its results beside its recipe."""
