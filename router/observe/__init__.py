"""Log, metrics and health: what the node says about itself. No patient data, ever."""
