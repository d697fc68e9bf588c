"""Tests that need nothing beside this repository: no Ray, no server of S3."""
