"""Which channels of a trained network matter most, and putting them in that order."""
