"""ALIKED: keypoints and descriptors."""
