"""Tests that need a Ray in this process."""
