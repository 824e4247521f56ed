"""tas_tf: makes a Keras image classifier smaller, within a compute budget."""
