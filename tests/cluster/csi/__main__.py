"""A CSI driver for tests: one image file for each volume, loop devices on the node.

Run it from the root of the repository, in the mount namespace of the kubelet, as root:

    python -m tests.cluster.csi --name rawfile.csi.cinderblock.test --data DIR --kubelet-dir DIR

`faults.py` tells how to make it fail.
"""

import logging
import queue
import signal

from tests.cluster.csi import driver, options

logger = logging.getLogger(__name__)


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    chosen = options.parse()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    # No threading.Event: a signal that comes while wait() holds the event's lock would make set() wait for it forever.
    stop: queue.SimpleQueue[None] = queue.SimpleQueue()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.put(None))
    with driver.running(chosen):
        logger.info("Serving %s", chosen.socket)
        stop.get()


if __name__ == "__main__":
    main()
