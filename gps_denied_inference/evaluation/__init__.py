"""How good localization is on frames whose place is known."""
