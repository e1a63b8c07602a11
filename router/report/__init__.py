"""From a prediction to result objects."""
