"""Add dependency groups to a complete `.venv`, or go on without them where they cannot be installed.

make runs it on a bare Python after environment.py, for targets that are of use without the group.
"""

import sys

from environment import Environment, lay_venv, one_at_a_time
from phases import ROOT, SetUpError, say


def main() -> int:
    """Install the groups that the arguments name. Return 0 also if that fails, after a line that says so."""
    venv = Environment(ROOT / ".venv")
    with one_at_a_time():
        before = venv.stamp.read_bytes()
        groups = {f"--with={name}" for name in sys.argv[1:]}
        try:
            lay_venv(venv, venv.extent() | groups, same_python=False)
        except SetUpError as error:
            venv.stamp.write_bytes(before)  # otherwise every later set-up would try the groups again
            say(f"going on without the dependency group {', '.join(sys.argv[1:])}: {error}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
