"""Training of models: loop, distillation, evaluation and checkpoints."""
