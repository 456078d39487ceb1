"""LightGlue and LighterGlue: matchers of two sets of features."""
