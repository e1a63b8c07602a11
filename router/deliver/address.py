"""Where commands send to: a destination's name in the configuration, or AET@HOST:PORT as people write it."""

from __future__ import annotations

import re
from typing import Any

from router import registry
from router.deliver.association import Address
from router.deliver.dicom import DicomDestination
from router.errors import ConfigError
from router.settings import Settings

_WRITTEN = re.compile(r"(?P<ae_title>[^@]{1,16})@(?P<host>\[[0-9A-Fa-f:.]+\]|[^:@]+):(?P<port>\d{1,5})")


def address_of(settings: Settings, destination: str) -> Address:
    """The DICOM address behind a name or AET@HOST:PORT. Raises ConfigError."""
    options = _options(settings, destination)
    if not isinstance(options, DicomDestination.Settings):
        raise ConfigError([f"destination {destination!r} is no DICOM node"])
    return Address(
        ae_title=options.ae_title,
        host=options.host,
        port=options.port,
        calling_ae_title=options.calling_ae_title or settings.node.ae_title,
        connect_timeout_s=options.connect_timeout_s,
        response_timeout_s=options.response_timeout_s,
    )


def echo(settings: Settings, destination: str) -> None:
    """Asks a destination of any type whether it is well. Raises ConfigError, or a TransientError with a diagnosis."""
    kind = settings.destinations[destination].type if destination in settings.destinations else "dicom"
    plugin: Any = registry.load("router.destinations", kind)
    node_ae_title = settings.node.ae_title
    target = plugin(name=destination, settings=_options(settings, destination), node_ae_title=node_ae_title)
    try:
        target.echo()
    finally:
        target.close()


def _options(settings: Settings, destination: str) -> Any:
    if destination in settings.destinations:
        return settings.destinations[destination].options
    written = _WRITTEN.fullmatch(destination)
    if written is None:
        known = ", ".join(settings.destinations) or "none is configured"
        raise ConfigError([f"destination {destination!r} is neither AET@HOST:PORT nor a name ({known})"])
    return DicomDestination.Settings(
        ae_title=written["ae_title"], host=written["host"].strip("[]"), port=int(written["port"])
    )
