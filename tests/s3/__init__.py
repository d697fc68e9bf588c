"""Tests that need an S3 endpoint over HTTP, and no Ray."""
