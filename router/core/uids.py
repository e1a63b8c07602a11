"""Deterministic UIDs of result objects: same source + classifier + parameters + writer, same UID, on every node.

UUIDs of version 5 (RFC 9562, name based) written as integers under 2.25 (PS3.5 B.2): at most 44 characters, no registration.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping

from router import __version__

#: Fixed once for the product. A UID that starts with 2.25 proves nothing; `Contributing Equipment` says who made an object.
NAMESPACE = uuid.uuid5(uuid.NAMESPACE_OID, "dicom-ai-router")


def derived_uid(*parts: str) -> str:
    """The UID of `parts`; the unit separator keeps ("ab", "c") and ("a", "bc") apart."""
    return f"2.25.{uuid.uuid5(NAMESPACE, chr(31).join(parts)).int}"


def digest(value: Mapping[str, object]) -> str:
    """SHA-256 of a JSON-able mapping, whatever the order of its keys; hexadecimal."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def result_sop_instance_uid(
    *,
    kind: str,
    source_sop_instance_uid: str,
    source_digest: str,
    weights_sha256: str,
    parameters: str,
    sop_class_uid: str,
    writer: str,
    predecessor: str = "",
) -> str:
    """SOP Instance UID of a result object; `predecessor` is that of the document it names as such.

    `parameters` is `digest(...)` of the classifier's parameters; `writer` names code table and writer version, because a
    changed writer must not reuse the UID of an object with other content (seen: the archive keeps the old one).
    """
    facts = (kind, source_sop_instance_uid, source_digest, weights_sha256, parameters, sop_class_uid, writer)
    return derived_uid("sop", *facts, *([predecessor] if predecessor else []))


def variant_sop_instance_uid(*, of: str, sop_class_uid: str) -> str:
    """SOP Instance UID of the same document in another SOP class."""
    return derived_uid("variant", of, sop_class_uid)


def result_series_instance_uid(*, kind: str, study_instance_uid: str, weights_sha256: str, parameters: str) -> str:
    """Series Instance UID: one series per study, kind of result and classifier."""
    return derived_uid("series", kind, study_instance_uid, weights_sha256, parameters)


def tracking_uid(*, source_sop_instance_uid: str, label: str) -> str:
    """Tracking Unique Identifier (TID 1501, 112040 DCM) of one finding on one image."""
    return derived_uid("track", source_sop_instance_uid, label)


def device_uid(*, weights_sha256: str) -> str:
    """Device UID (0018,1002): a new one for every retraining."""
    return derived_uid("device", weights_sha256)


#: Implementation Class UID and Version Name (PS3.7 D.3.3.2, PS3.10 7.1): who wrote a file, who speaks on an association.
IMPLEMENTATION_CLASS_UID = derived_uid("implementation class")
IMPLEMENTATION_VERSION_NAME = f"AIROUTER_{__version__}"[:16]
