"""Latency as a cost: measures students on LiteRT, learns a model from them, and times single shapes."""
