"""Trains several shapes briefly, again and again the better half of them, until the best is left."""
