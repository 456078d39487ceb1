"""Reading and writing rosbag2 (db3 and mcap) without ROS, through the ``rosbags`` library."""
