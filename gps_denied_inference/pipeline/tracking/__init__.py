"""Features followed from frame to frame."""
