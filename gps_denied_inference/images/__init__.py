"""Pixels from ROS images, compressed images and files, one decoder for each kind."""
