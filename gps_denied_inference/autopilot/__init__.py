"""Map fixes to an autopilot, and its attitude and position back, over MAVLink. No ROS here."""
