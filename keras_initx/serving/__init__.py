"""Serving of SavedModel folders by TensorFlow Serving's protocol. It needs a folder on disk and nothing else."""
