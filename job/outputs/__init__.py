"""What is written under OUTPUT."""
