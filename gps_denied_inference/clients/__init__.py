"""Programs that talk to the node over ROS."""
