"""What differs between the machine that documents speak of and the one that tests run on: in this file and nowhere else."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from urllib.request import ProxyHandler, build_opener

from tests.peers import HOST, ROOT, free_port, program

#: Ports that may be in use here: in commands, in what they print and in configuration files.
PORTS: Mapping[str, int] = {text: free_port() for text in ("11112", "4242", "8042", "8080")}
#: What else differs in config/router.toml: no internet to fetch weights from, no 2 GiB free for tests.
_CONFIGURED = {
    'type = "xrv" ': 'type = "demo" ',
    'weights = "densenet121-res224-all"': "",
    'free_byte_count_min = "2 GiB"': 'free_byte_count_min = "64 MiB"',
}


def translate(text: str) -> str:
    """Ports of the documents -> ports of this machine; where Debian has Orthanc -> where it lies here."""
    if "/usr/sbin/Orthanc" in text:
        text = text.replace("/usr/sbin/Orthanc", str(program("Orthanc")))
    return re.sub(r"\b(" + "|".join(PORTS) + r")\b", lambda found: str(PORTS[found[0]]), text)


def configured(text: str) -> str:
    """config/router.toml as a clone has it here."""
    for there, here in _CONFIGURED.items():
        assert there in text, there
        text = text.replace(there, here)
    return translate(text)


def forwarding(_text: str) -> str:
    """config/forward.toml in the place of config/router.toml: for what needs no classifier."""
    text = (ROOT / "config/forward.toml").read_text(encoding="utf-8")
    spool = 'path = "var/spool"\n'
    assert spool in text
    return translate(text.replace(spool, f'{spool}free_byte_count_min = "64 MiB"\n') + "\n[web]\nport = 8080\n")


def serves(_printed: str = "") -> bool:
    """Whether the node of config/router.toml is ready, and its classifiers are."""
    try:
        with build_opener(ProxyHandler({})).open(f"http://{HOST}:{PORTS['8080']}/health/ready", timeout=10) as answer:
            return all(json.load(answer)["classifiers"].values())
    except OSError:
        return False
