"""How a router node signs what it makes, and how any router node recognises it: never by description text, never by UID alone.

Every result object has an item in its Contributing Equipment Sequence (0018,A001) with these three facts. They stay the
same for ever: an object made by an old version must be recognised by a new one.
Source: PS3.3 C.12.1.1.5 (Contributing Equipment), PS3.16 CID 7005 (purpose of reference).
"""

from __future__ import annotations

from router.core.uids import IMPLEMENTATION_CLASS_UID

#: Manufacturer (0008,0070) of the router's item.
MANUFACTURER = "dicom-ai-router"
#: Manufacturer's Model Name (0008,1090) of the router's item.
MODEL_NAME = "dicom-ai-router"
#: Purpose of Reference Code Sequence (0040,A170): code value, coding scheme designator, code meaning.
PURPOSE = ("109102", "DCM", "Processing Equipment")

#: Implementation Class UID (0002,0012) of every file and association of ours (PS3.7 D.3.3.2): one for all versions.
__all__ = [
    "IMPLEMENTATION_CLASS_UID",
    "IMPLEMENTATION_VERSION_NAME",
    "MANUFACTURER",
    "MODEL_NAME",
    "PURPOSE",
    "is_ours",
]
#: Implementation Version Name (0002,0013), VR SH: without a version, so that a result's bytes do not depend on a release.
IMPLEMENTATION_VERSION_NAME = "DICOM_AI_ROUTER"


def is_ours(*, manufacturer: str, model_name: str, purpose_code: str, purpose_scheme: str) -> bool:
    """True when one Contributing Equipment item says that a router node made the object; padding does not matter."""
    found = (manufacturer.strip(" \0"), model_name.strip(" \0"), purpose_code.strip(" \0"), purpose_scheme.strip(" \0"))
    return found == (MANUFACTURER, MODEL_NAME, *PURPOSE[:2])
