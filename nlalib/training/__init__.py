"""A run: its parameters, its loop, what it leaves behind."""
