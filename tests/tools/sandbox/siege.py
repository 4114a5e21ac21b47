"""All attacks in one go, as a program: so that it can be run as another user. Prints a line of JSON.

python -m siege FOLDER TIER, where FOLDER has the package; TIER "" runs the attacks with nothing around them.
"""

from __future__ import annotations

import json
import sys
import time

from attacks import ATTACKS, free_of_walls, victim


def main() -> None:
    tier = sys.argv[1]
    out, said = [], {}
    with victim() as there:
        if not tier:
            for name in ATTACKS:
                if (found := free_of_walls(there.program(name))) == "True":
                    out.append(name)
                else:
                    said[name] = found
            print(json.dumps({"out": out, "said": said}))
            return
        from twofile.tools.sandbox.interpreter import Interpreter

        assert tier in ("bubblewrap", "landlock")
        begun = time.monotonic()
        with Interpreter(tier) as walls:  # type: ignore[arg-type]
            took = time.monotonic() - begun
            for name in ATTACKS:
                ran = walls.run(there.program(name))
                if ran.value != "False":
                    out.append(name)
                    said[name] = ran.error or ran.value
    print(json.dumps({"out": out, "said": said, "start": took, "tried": len(ATTACKS)}))


if __name__ == "__main__":
    main()
