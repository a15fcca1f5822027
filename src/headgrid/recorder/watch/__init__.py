"""A running model -> its attention functions, watched, and where each is called."""
