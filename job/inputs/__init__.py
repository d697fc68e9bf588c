"""From INPUT to the rows of a manifest, and the bytes of an image."""
