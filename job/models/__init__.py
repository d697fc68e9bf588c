"""From a model's files to class scores."""
