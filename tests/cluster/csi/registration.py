"""Register with the kubelet as a plugin, without a sidecar.

The kubelet watches `plugins_registry/`: a socket that appears there is asked who it is, one that goes is forgotten.
"""

import logging
from typing import Any

from tests.cluster.csi import stubs

CSI_VERSION = "1.0.0"

logger = logging.getLogger(__name__)


def service() -> Any:
    """Return the descriptor of the Registration service."""
    return stubs.load("pluginregistration").DESCRIPTOR.services_by_name["Registration"]


class Registration:
    """Register one driver with the kubelet."""

    def __init__(self, name: str, socket: str) -> None:
        self._name = name
        self._socket = socket
        self._messages = stubs.load("pluginregistration")

    def get_info(self, _request: Any) -> Any:
        return self._messages.PluginInfo(
            type="CSIPlugin", name=self._name, endpoint=self._socket, supported_versions=[CSI_VERSION]
        )

    def notify_registration_status(self, request: Any) -> Any:
        if not request.plugin_registered:
            logger.error("The kubelet refused the driver: %s", request.error)
        return self._messages.RegistrationStatusResponse()
