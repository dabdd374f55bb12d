"""What is done to a set before training: audit, duplicates, alignment."""
