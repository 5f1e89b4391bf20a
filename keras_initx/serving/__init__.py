"""SavedModel folders served by TensorFlow Serving's protocol: this room knows folders on disk alone."""
