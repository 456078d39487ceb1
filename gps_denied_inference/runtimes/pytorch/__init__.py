"""PyTorch, the numerical reference."""
