"""Image data: sources, splits, preprocessing, augmentation and the input pipeline."""
