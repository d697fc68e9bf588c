"""The architectures of batch inference side by side."""
