"""What is made from the table of settings: the parameter file and the tables in the documents."""

from __future__ import annotations

from gps_denied_inference.settings import Settings


def as_yaml() -> str:
    """Return the commented parameter file that ships as ``config/inference.yaml``."""
    lines = [
        "# Every parameter of inference_node with its default.",
        "# Made by: tools/with_env python tools/generate.py",
        "/**:",
        "  ros__parameters:",
    ]
    for row in Settings.table(documented=True):
        when = "any time" if row.dynamic else "while unconfigured"
        lines.append(f"    # {row.description}")
        lines.append(f"    # {row.bound}; may be set {when}")
        default = row.default
        if isinstance(default, bool):
            text = str(default).lower()
        elif isinstance(default, str):
            text = f'"{default}"'
        elif isinstance(default, tuple):
            text = "[" + ", ".join(f'"{one}"' for one in default) + "]"
        else:
            text = repr(default)
        lines.append(f"    {row.name}: {text}")
    return "\n".join(lines) + "\n"


def as_markdown() -> str:
    """Return the README's table of parameters."""
    lines = ["| parameter | type | default | bounds | set | meaning |", "|---|---|---|---|---|---|"]
    for row in Settings.table(documented=True):
        when = "any time" if row.dynamic else "unconfigured"
        value = list(row.default) if isinstance(row.default, tuple) else row.default
        default = f"`{value!r}`" if isinstance(value, str) else f"`{value}`"
        lines.append(
            f"| `{row.name}` | {row.type_name} | {default} | {row.bound} | {when} "
            f"| {row.description} |"
        )
    return "\n".join(lines) + "\n"
