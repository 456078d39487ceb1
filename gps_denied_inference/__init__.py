"""Neural features, tracks and matches for drones that navigate without GPS.

Importing this package imports no vendor library and no ROS: runtimes, networks and the node are
loaded when they are asked for.
"""

from pkgutil import extend_path

# The generated messages (gps_denied_inference.msg) live in another folder of the same name when
# the package is run from its source tree; this lets Python find both.
__path__ = extend_path(__path__, __name__)
