"""Structured Reports as a FHIR R4 (4.0.1) Bundle, built from and validated by fhirclient's resource classes.

What the router does not own (patient, order) is referred to by identifier only; what it knows by UID is in the bundle. The same
reports give the same bundle, identifiers included. Sources: FHIR R4 DiagnosticReport, Observation, Device, ImagingStudy;
HL7 «DICOM SR to FHIR Resource Mapping» 1.0.0 (an R5 guide: its mapping, as far as R4 has the elements).
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from router.core.instance import Reference
from router.errors import RouterError
from router.report import codes
from router.report.codes import Code
from router.report.told import Told, ToldFinding

Resource = dict[str, Any]

NOT_INSTALLED = "FHIR needs fhirclient, which is not installed: pip install 'dicom-ai-router[fhir]'"
_SYSTEMS = {
    "SCT": "http://snomed.info/sct",
    "DCM": "http://dicom.nema.org/resources/ontology/DCM",
    "RADLEX": "http://radlex.org",
    "UCUM": "http://unitsofmeasure.org",
}
_TERMINOLOGY = "http://terminology.hl7.org/CodeSystem"
_DICOM_UID = "urn:dicom:uid"
_ASSERTED_BY_AI = {
    "system": f"{_TERMINOLOGY}/v3-ObservationValue",
    "code": "AIAST",
    "display": "Artificial Intelligence asserted",
}
_UNDETERMINED = "373068000"
#: SNOMED CT qualifier -> v3-ObservationInterpretation.
_INTERPRETATIONS = {
    codes.PRESENT.value: ("POS", "Positive"),
    codes.ABSENT.value: ("NEG", "Negative"),
    _UNDETERMINED: ("IND", "Indeterminate"),
}
_STUDY_UID = Code("110180", "DCM", "Study Instance UID")
_SPACES = re.compile(r"[\x00-\x20\x7f-\xa0]+")


def bundle_of(reports: Sequence[tuple[Told, datetime]]) -> dict[str, Any]:
    """A Bundle (collection) as JSON: each report with the time at which it was made, aware.

    Raises RouterError when fhirclient is not installed, or finds something that FHIR R4 does not allow.
    """
    try:
        from fhirclient.models import bundle, fhirabstractbase
    except ImportError as error:
        raise RouterError(NOT_INSTALLED) from error
    resources: dict[str, Resource] = {}
    for study in _studies([report for report, _ in reports]):
        resources[study["id"]] = study
    for report, made_at in reports:
        for resource in _resources(report, made_at):
            resources[resource["id"]] = resource
    written: dict[str, Any] = {
        "resourceType": "Bundle",
        "id": _id("bundle", *(report.itself.sop_instance_uid for report, _ in reports)),
        "type": "collection",
        "entry": [{"fullUrl": f"urn:uuid:{key}", "resource": resource} for key, resource in resources.items()],
    }
    try:
        read = bundle.Bundle(written).as_json()
    except fhirabstractbase.FHIRValidationError as error:
        raise RouterError(f"the reports cannot be told in FHIR R4: {error}") from error
    if read != written:
        raise RouterError("the reports cannot be told in FHIR R4: fhirclient drops a part of them")
    return written  # with the order of our keys, in which people find things


def _resources(report: Told, made_at: datetime) -> Iterator[Resource]:
    device = _device(report)
    yield device
    results = []
    for finding in report.findings:
        observation = _observation(report, finding, made_at, device["id"])
        results.append(observation)
        yield observation
    yield _drop_empty(
        {
            "resourceType": "DiagnosticReport",
            "id": _id("report", report.itself.sop_instance_uid),
            "meta": {"security": [_ASSERTED_BY_AI]},
            "identifier": [_uid(report.itself.sop_instance_uid)],
            "basedOn": _order(report),
            "status": _status(report),
            "category": [_concept_of(f"{_TERMINOLOGY}/v2-0074", "RAD", "Radiology")],
            "code": _concept(codes.IMAGING_MEASUREMENT_REPORT, f"AI result of {report.algorithm.name}"),
            "subject": _subject(report),
            "effectiveDateTime": _date(report.study_date),
            "issued": _instant(made_at),
            "imagingStudy": [_to(_study_id(report.itself.study_instance_uid))],
            "result": [_to(observation["id"]) for observation in results],
            "conclusion": _conclusion(report),
        }
    )


def _observation(report: Told, finding: ToldFinding, made_at: datetime, device_id: str) -> Resource:
    component = []
    if finding.threshold_percent is not None:  # DICOM and LOINC have no code for a decision threshold
        component = [{"code": {"text": "Decision threshold"}, "valueQuantity": _percent(finding.threshold_percent)}]
    source: list[Resource] = [_to(_study_id(report.itself.study_instance_uid))]
    if finding.image_uid:
        source.append({"type": "Media", "identifier": _uid(finding.image_uid), "display": "The image"})
    return _drop_empty(
        {
            "resourceType": "Observation",
            "id": _id("observation", report.itself.sop_instance_uid, finding.image_uid, finding.label),
            "meta": {"security": [_ASSERTED_BY_AI]},
            "identifier": [_uid(finding.tracking_uid, codes.TRACKING_UNIQUE_IDENTIFIER) | {"use": "secondary"}]
            if finding.tracking_uid
            else [],
            "basedOn": _order(report),
            "status": _status(report),
            "category": [_concept_of(f"{_TERMINOLOGY}/observation-category", "imaging", "Imaging")],
            "code": _concept(finding.code, finding.label),
            "subject": _subject(report),
            "effectiveDateTime": _date(report.study_date),
            "issued": _instant(made_at),
            "valueQuantity": _percent(finding.score_percent),
            "interpretation": _interpretation(finding),
            "note": [{"text": _line(text)} for text in report.comments],
            "bodySite": _concept(finding.site) if finding.site else None,
            "method": _concept(codes.ARTIFICIAL_INTELLIGENCE),
            "device": _to(device_id),
            "derivedFrom": source,
            "component": component,
        }
    )


def _device(report: Told) -> Resource:
    algorithm = report.algorithm
    return _drop_empty(
        {
            "resourceType": "Device",
            "id": _id(
                "device", *(getattr(algorithm, name) for name in ("device_uid", "name", "version", "parameters"))
            ),
            "identifier": [_uid(algorithm.device_uid)] if algorithm.device_uid else [],
            "manufacturer": _line(algorithm.manufacturer),
            "deviceName": [{"name": _line(algorithm.name), "type": "model-name"}],
            "type": {"text": "Image classification algorithm"},
            "version": [
                {"type": {"text": text}, "value": _line(value)}
                for text, value in (("algorithm", algorithm.version), ("weights SHA-256", algorithm.weights_sha256))
                if value
            ],
            "property": [
                {"type": {"text": _line(name)}, "valueCode": [{"text": _line(value)}]}
                for name, value in algorithm.parameters
                if value
            ],
        }
    )


def _studies(reports: Sequence[Told]) -> Iterator[Resource]:
    """An ImagingStudy for each study, with the series and instances that the reports are and speak of."""
    for study_uid in dict.fromkeys(report.itself.study_instance_uid for report in reports):
        of_study = [report for report in reports if report.itself.study_instance_uid == study_uid]
        series: dict[str, Resource] = {}
        for instance, modality in (pair for report in of_study for pair in (*report.images, (report.itself, "SR"))):
            if instance.study_instance_uid == study_uid:
                _file(series, instance, modality)
        first = of_study[0]
        yield _drop_empty(
            {
                "resourceType": "ImagingStudy",
                "id": _study_id(study_uid),
                "identifier": [_uid(study_uid, _STUDY_UID)],
                "status": "available",
                "subject": _subject(first),
                "started": _date(first.study_date),
                "basedOn": _order(first),
                "series": list(series.values()),
            }
        )


def _file(series: dict[str, Resource], instance: Reference, modality: str) -> None:
    at = series.setdefault(
        instance.series_instance_uid,
        {
            "uid": instance.series_instance_uid,
            "modality": {"system": _SYSTEMS["DCM"], "code": modality or "OT"},
            "instance": [],
        },
    )
    entry = {
        "uid": instance.sop_instance_uid,
        "sopClass": {"system": "urn:ietf:rfc:3986", "code": f"urn:oid:{instance.sop_class_uid}"},
    }
    if entry not in at["instance"]:
        at["instance"].append(entry)


def _conclusion(report: Told) -> str:
    """What stands in the report, in words; the warnings first, as in the report."""
    sentences = [_line(text) for text in report.comments]
    positive = [f for f in report.findings if f.presence and f.presence.value == codes.PRESENT.value]
    if positive:
        named = (
            f"{_line(f.label)} {f.score_percent:g} %"
            + (f" (threshold {f.threshold_percent:g} %)" if f.threshold_percent is not None else "")
            for f in positive
        )
        sentences.append(f"At or above the threshold: {', '.join(named)}.")
    if report.findings:
        others = len(report.findings) - len(positive)
        sentences.append(f"{others} of {len(report.findings)} findings are not.")
    return "\n".join(sentence for sentence in sentences if sentence) or "No findings are told."


def _status(report: Told) -> str:
    """`cancelled`: «the measurement was not started or not completed» (diagnostic-report-status)."""
    if report.partial and not report.findings:
        return "cancelled"
    return "final" if report.final else "preliminary"


def _interpretation(finding: ToldFinding) -> list[Resource]:
    if finding.presence is None:
        return []
    code, display = _INTERPRETATIONS.get(finding.presence.value, _INTERPRETATIONS[_UNDETERMINED])
    coding = [{"system": f"{_TERMINOLOGY}/v3-ObservationInterpretation", "code": code, "display": display}]
    return [{"coding": coding + _coding(finding.presence), "text": _line(finding.presence.meaning)}]


def _subject(report: Told) -> Resource:
    """The patient as the report names it; no Patient resource, because the router owns none."""
    if not (value := _line(report.patient_id)):
        return {"type": "Patient", "display": "The image has no Patient ID"}
    identifier: Resource = {"value": value}
    if issuer := _line(report.issuer_of_patient_id):
        identifier["assigner"] = {"display": issuer}
    return {"type": "Patient", "identifier": identifier}


def _order(report: Told) -> list[Resource]:
    if not (value := _line(report.accession_number)):
        return []
    kind = _concept_of(f"{_TERMINOLOGY}/v2-0203", "ACSN", "Accession ID")
    return [{"type": "ServiceRequest", "identifier": {"type": kind, "value": value}}]


def _uid(uid: str, kind: Code | None = None) -> Resource:
    named = {"type": _concept(kind)} if kind else {}
    return {**named, "system": _DICOM_UID, "value": f"urn:oid:{uid}"}


def _percent(value: float) -> Resource:
    return {"value": value, "unit": "%", "system": _SYSTEMS["UCUM"], "code": "%"}


def _concept(code: Code, text: str = "") -> Resource:
    """A code of a private scheme is told by its text alone: nobody else knows it."""
    return _drop_empty({"coding": _coding(code), "text": _line(text or code.meaning)})


def _coding(code: Code) -> list[Resource]:
    system = _SYSTEMS.get(code.scheme)
    return [{"system": system, "code": code.value, "display": code.meaning}] if system else []


def _concept_of(system: str, code: str, display: str) -> Resource:
    return {"coding": [{"system": system, "code": code, "display": display}]}


def _date(value: str) -> str:
    """YYYY-MM-DD of a DICOM date (PS3.5 6.2, DA); empty when it is none."""
    try:
        return datetime.strptime(value, "%Y%m%d").date().isoformat()
    except ValueError:
        return ""


def _instant(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds")


def _line(text: str) -> str:
    """As FHIR allows it in a string: no control characters, nothing around it."""
    return _SPACES.sub(" ", text).strip()


def _drop_empty(resource: Mapping[str, Any]) -> Resource:
    """FHIR has no empty values: what is not known is not there."""
    return {key: value for key, value in resource.items() if value not in (None, "", [], {})}


def _to(identifier: str) -> Resource:
    return {"reference": f"urn:uuid:{identifier}"}


def _study_id(study_instance_uid: str) -> str:
    return _id("study", study_instance_uid)


def _id(*parts: object) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, "|".join(("dicom-ai-router", *map(str, parts)))))
