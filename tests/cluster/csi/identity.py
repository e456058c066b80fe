"""The Identity service: the driver's name and its optional services."""

from typing import Any

from tests.cluster.csi import messages

VERSION = "1"


class Identity:
    """Identity of one driver."""

    def __init__(self, name: str, has_metadata: bool) -> None:
        self._name = name
        self._has_metadata = has_metadata

    def get_plugin_info(self, _request: Any) -> Any:
        return messages.GetPluginInfoResponse(name=self._name, vendor_version=VERSION)

    def get_plugin_capabilities(self, _request: Any) -> Any:
        service = messages.PluginCapability.Service
        kinds = [service.CONTROLLER_SERVICE]
        if self._has_metadata:
            kinds.append(service.SNAPSHOT_METADATA_SERVICE)
        capabilities = [messages.PluginCapability(service=service(type=kind)) for kind in kinds]
        return messages.GetPluginCapabilitiesResponse(capabilities=capabilities)

    def probe(self, _request: Any) -> Any:
        response = messages.ProbeResponse()
        response.ready.value = True
        return response
