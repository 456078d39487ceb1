"""The lifecycle node and its parts: the only code, beside ``clients``, that imports ROS."""
