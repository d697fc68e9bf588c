"""Where files are: local, S3, and whatever else fsspec opens."""
