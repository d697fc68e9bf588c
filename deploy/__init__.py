"""What a cluster needs before it is made: checks, and the template of its rights."""
