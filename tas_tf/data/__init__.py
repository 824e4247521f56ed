"""Image data: sources, splits, preprocessing, augmentation and the one input pipeline."""
