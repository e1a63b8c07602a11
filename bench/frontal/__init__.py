"""The picture check of router/classify/frontal.py: what it learnt from, and how often it errs."""
