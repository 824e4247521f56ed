"""Quantisation-aware training: the network again in tf_keras, which TensorFlow's toolkit takes, and its fine-tuning."""
