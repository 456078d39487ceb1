"""A runtime and a network from outside gps_denied_inference."""
