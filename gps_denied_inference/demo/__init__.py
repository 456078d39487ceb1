"""The demo: a flight, the real node, and a report of what came out. Nothing here imports ROS."""
