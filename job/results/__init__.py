"""What is read back of an OUTPUT."""
