"""Dashboard, metrics and health over HTTP."""
