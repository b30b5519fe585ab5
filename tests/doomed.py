"""A migration whose controller dies in the middle: `doomed.py CONTAINER MOMENT [ROLE@HOST…]`.

At that event the agents named are killed, so that they can put nothing away, and then this process itself.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

from stage import kill_agent, set_up

from sealift.lab import lab

if TYPE_CHECKING:
    from sealift.migration.session import Session


def main(container: str, moment: str, *agents: str) -> None:
    """Migrate, and die at that moment."""
    with set_up(lab.running()) as stage:

        def die(session: Session) -> None:
            for agent in agents:
                role, _, host = agent.partition("@")
                kill_agent(stage, host, role)(session)
            os.kill(os.getpid(), signal.SIGKILL)

        stage.engine(container, {moment: die})


if __name__ == "__main__":
    main(*sys.argv[1:])
