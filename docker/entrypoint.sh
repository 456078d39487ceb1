#!/usr/bin/env bash
# Sources ROS and the workspace, whichever of the usual places they are in, and runs the command.
set -e
for setup in \
  "/opt/ros/${ROS_DISTRO:-jazzy}/setup.bash" \
  "/opt/ros/${ROS_DISTRO:-jazzy}/install/setup.bash" \
  /workspace/install/setup.bash; do
  if [[ -f $setup ]]; then
    # shellcheck source=/dev/null
    source "$setup"
  fi
done
exec "$@"
