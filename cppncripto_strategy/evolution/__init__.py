"""Evolving a recipe's encoder (over `models.evolution`), and its page."""
