"""XFeat: keypoints and descriptors."""
