"""The messages of CSI by name, as in `messages.CreateVolumeResponse`.

They are generated at first use and not at import, so that collecting tests neither downloads nor generates anything.
"""

from typing import Any

from tests.cluster.csi import stubs


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    return getattr(stubs.load("csi"), name)
