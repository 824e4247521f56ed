"""How models are trained and where their results lie."""
