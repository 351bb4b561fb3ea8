"""A daemon in a process of its own, with a fake engine, over the world below a folder: something that can be killed.

    python -m tests.faults.served HOME      (LORAVAULT_CRASH_AT as it likes)

It leaves with 0 once every request in the vault is answered and nothing waits.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

from tests.world import World


def main() -> int:
    os.environ["LORAVAULT_STATE_DIR"] = str(Path(sys.argv[1]) / "state")
    world = World(Path(sys.argv[1]), write_quiet_s=0.05, read_quiet_s=0.02, grace_s=0.05, together_s=0.05)
    daemon = world.daemon()
    give_up = time.monotonic() + 120

    def over() -> bool:
        if time.monotonic() > give_up:
            raise SystemExit(3)
        if daemon.feed.waiting or daemon.ctx.to_deliver or daemon.dispatcher.job is not None:
            return False
        return all(world.is_answered(path.name) for path in world.vault.glob("*.md"))

    daemon.run(threading.Event(), until=over)
    daemon.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
