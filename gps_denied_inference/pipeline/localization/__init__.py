"""Where a frame lies on a map, and where a flight goes between its fixes. No ROS."""
