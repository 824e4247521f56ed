"""What TensorBoard shows: one scheme of names for all steps, distributions, pictures, a layout and a run's results."""
