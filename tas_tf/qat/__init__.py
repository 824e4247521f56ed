"""Quantisation-aware training: rebuilds a network in tf_keras, which TensorFlow's toolkit needs, and fine-tunes it."""
