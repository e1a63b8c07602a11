"""From an image to a prediction. Runs in the child process; only here torch may be imported."""
