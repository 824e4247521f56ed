"""What a network is trained for: loss, distillation and scores of each kind of output."""
