"""Ask a vulnerability service about everything that the locks pin, and say plainly what could not be asked.

`make audit` runs it; more arguments for pip-audit come in AUDIT_ARGS, such as `--vulnerability-service osv`. It ends
with 1 where something that is pinned is known to be vulnerable, and with 0 otherwise, also where the service could not
be reached: that says nothing about the locks.
"""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# What the other locks pin is pinned to the same versions in the first.
LOCKS = ("development.txt", "build.txt")
# What the library's errors have in common where there is no connection, or no answer.
UNREACHABLE = "requests.exceptions."


def main(arguments: Sequence[str]) -> int:
    """Audit the locks, or the requirement files that `--requirement` names; return the exit code."""
    given = (
        [] if "--requirement" in arguments else [f"--requirement={Path(__file__).with_name(name)}" for name in LOCKS]
    )
    options = ["--disable-pip", "--no-deps", "--format=json", "--progress-spinner=off"]
    done = subprocess.run(
        [sys.executable, "-m", "pip_audit", *options, *given, *arguments], capture_output=True, text=True, check=False
    )
    if done.stdout:
        return tell(json.loads(done.stdout)["dependencies"])
    if UNREACHABLE in done.stderr:
        return tell_that_nothing_was_asked(done.stderr.strip().splitlines()[-1])
    sys.stderr.write(done.stderr)
    return done.returncode


def tell(found: Sequence[Mapping[str, Any]]) -> int:
    """Write what was found, a line for each vulnerability; return the exit code."""
    audited = [package for package in found if "skip_reason" not in package]
    vulnerable = [package for package in audited if package["vulns"]]
    for package in vulnerable:
        for fault in package["vulns"]:
            mend = f"mended in {', '.join(fault['fix_versions'])}" if fault["fix_versions"] else "not mended yet"
            sys.stdout.write(f"{package['name']} {package['version']}: {fault['id']}, {mend}\n")
    if not audited:
        return tell_that_nothing_was_asked("the service knows none of the packages")
    if len(audited) < len(found):
        sys.stdout.write(f"packages that the service does not know: {len(found) - len(audited)}\n")
    sys.stdout.write(f"packages audited: {len(audited)}, vulnerable: {len(vulnerable)}\n")
    return 1 if vulnerable else 0


def tell_that_nothing_was_asked(why: str) -> int:
    """Write why there is no result; return the exit code."""
    sys.stdout.write(f"nothing was audited: the vulnerability service could not be asked ({why})\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
