"""What other people's validators say of our reports, and of another router's: `python -m bench.validators`."""
