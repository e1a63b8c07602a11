"""The SR as highdicom lays it out and pydicom encodes it: what the router's own encoder is compared with, byte for byte.

highdicom gets the cleaned context, never the received data set, and what it writes of the patient is replaced afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from highdicom import sr
from pydicom import Dataset
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element, write_file_meta_info
from pydicom.uid import (
    UID,
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    ComputedRadiographyImageStorage,
    EnhancedSRStorage,
    ExplicitVRLittleEndian,
)

from router.core import provenance
from router.core.findings import Finding, Prediction
from router.core.instance import Reference, SopInstance
from router.core.provenance import MANUFACTURER, MODEL_NAME
from router.core.uids import device_uid, tracking_uid
from router.report import codes
from router.report.codes import PRIVATE_SCHEME, Code, Confirmation, ascii_text, finding_code, software_versions
from router.report.context import COPIED, Context, context_of
from router.report.document import DEMONSTRATION, NOT_FOR_DIAGNOSIS
from router.report.sr import SCORES, series_description

_DOCUMENT_CLASSES = {
    str(Comprehensive3DSRStorage): sr.Comprehensive3DSR,
    str(EnhancedSRStorage): sr.EnhancedSR,
    str(ComprehensiveSRStorage): sr.ComprehensiveSR,
}
#: VR LO.
_LINE_LENGTH_MAX = 64
#: Decimals of scores and thresholds, the same for both: rounding then never puts a score on the other side of its threshold.
_PERCENT_DIGITS = 2


def written(
    source: Dataset,
    instance: SopInstance,
    prediction: Prediction,
    *,
    sop_class_uid: str,
    sop_instance_uid: str,
    series_instance_uid: str,
    predecessor: Reference | None = None,
) -> bytes:
    """The file that `SrBuilder` should make."""
    context = context_of(source, sop_class_uid=instance.sop_class_uid)
    made = document(
        context,
        prediction,
        sop_class_uid=sop_class_uid,
        sop_instance_uid=sop_instance_uid,
        series_instance_uid=series_instance_uid,
        series_number=9901,
        series_description=series_description(prediction.classifier),
        comments=_comments(prediction),
        at=_content_time(instance.received_at, context),
    )
    made.ContributingEquipmentSequence = _equipment(prediction, instance.received_at)
    if any(finding_code(finding.label).confirmation is Confirmation.LOCAL for finding in prediction.findings):
        made.CodingSchemeIdentificationSequence = [_private_scheme()]
    if predecessor is not None:
        made.PredecessorDocumentsSequence = [hierarchy(predecessor)]
    return part10(made, context.header)


def document(
    context: Context,
    prediction: Prediction,
    *,
    sop_class_uid: str,
    sop_instance_uid: str,
    series_instance_uid: str,
    series_number: int,
    series_description: str,
    comments: tuple[str, ...],
    at: datetime,
) -> Dataset:
    """The document as highdicom builds it, dates of creation included; patient and study are still placeholders."""
    document_class = _DOCUMENT_CLASSES[sop_class_uid]
    made: Dataset = document_class(
        evidence=[_stand_in(context)],
        content=_content(context, prediction, comments),
        series_instance_uid=series_instance_uid,
        series_number=series_number,
        sop_instance_uid=sop_instance_uid,
        instance_number=context.instance_number,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=MODEL_NAME,
        software_versions=list(software_versions()),
        # Type 1 in the Enhanced General Equipment module; a program has none.
        device_serial_number="software",
        is_complete=True,
        is_final=False,
        is_verified=False,
        content_qualification="RESEARCH",
        content_date=at.date(),
        content_time=at.time(),
        series_description=series_description,
        transfer_syntax_uid=ExplicitVRLittleEndian,
    )
    made.CurrentRequestedProcedureEvidenceSequence = [hierarchy(_image(context))]
    # highdicom takes these from the clock.
    made.InstanceCreationDate, made.InstanceCreationTime = made.ContentDate, made.ContentTime
    for item in _items(made):
        if "ContinuityOfContent" in item:
            item.ContinuityOfContent = "SEPARATE"  # every item is a statement of its own, not a part of running text
    return made


def _content(context: Context, prediction: Prediction, comments: tuple[str, ...]) -> Any:
    classifier = prediction.classifier
    algorithm = ascii_text(classifier.algorithm, _LINE_LENGTH_MAX)
    observer = sr.ObserverContext(
        observer_type=_concept(codes.DEVICE),
        observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
            uid=device_uid(weights_sha256=classifier.weights_sha256),
            name=algorithm,
            manufacturer_name=ascii_text(classifier.manufacturer, _LINE_LENGTH_MAX),
            model_name=algorithm,
        ),
    )
    report = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=observer),
        procedure_reported=_concept(codes.IMAGING_PROCEDURE),
        imaging_measurements=[_group(context, prediction, finding) for finding in prediction.findings],
        title=_concept(codes.IMAGING_MEASUREMENT_REPORT),
        language_of_content_item_and_descendants=sr.LanguageOfContentItemAndDescendants(
            language=_concept(codes.ENGLISH)
        ),
    )
    items = report[0].ContentSequence
    at = next(index for index, item in enumerate(items) if item.ValueType == "CONTAINER")
    # TID 1500 is extensible: the comments come first because people read from the top.
    # A modality that is not of CID 29 has no image library.
    library = [_image_library(context)] if context.modality in codes.MODALITIES else []
    for item in reversed([*(_comment(text) for text in comments), *library]):
        items.insert(at, item)
    return report


def _group(context: Context, prediction: Prediction, finding: Finding) -> Any:
    """TID 1501 Measurement and Qualitative Evaluation Group."""
    row = finding_code(finding.label)
    answer = codes.PRESENT if finding.present else codes.ABSENT
    classifier = prediction.classifier
    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(
            identifier=ascii_text(finding.label, _LINE_LENGTH_MAX),
            uid=tracking_uid(source_sop_instance_uid=context.sop_instance_uid, label=finding.label),
        ),
        finding_category=_concept(codes.CLINICAL_FINDING),
        finding_type=_concept(row.code),
        finding_sites=[sr.FindingSite(anatomic_location=_concept(row.site))] if row.site else None,
        algorithm_id=sr.AlgorithmIdentification(
            name=ascii_text(classifier.algorithm, _LINE_LENGTH_MAX),
            version=ascii_text(classifier.version, _LINE_LENGTH_MAX),
            parameters=_parameters(prediction, finding),
        ),
        measurements=[
            sr.Measurement(
                name=_concept(codes.CERTAINTY),
                value=round(100 * finding.score, _PERCENT_DIGITS),
                unit=_concept(codes.PERCENT),
                # The OHIF viewer cannot load a NUM without a child item.
                method=_concept(codes.ARTIFICIAL_INTELLIGENCE),
            )
        ],
        qualitative_evaluations=[sr.QualitativeEvaluation(name=_concept(row.code), value=_concept(answer))],
    )
    group[0].ContentSequence.append(_reference(codes.SOURCE_OF_MEASUREMENT, context))
    percents = f"{round(100 * finding.score, 2):g} %, threshold {round(100 * finding.threshold, 2):g} %"
    group[0].ContentSequence.append(_comment(f"{percents}: {'present' if finding.present else 'absent'}"))
    return group


def _parameters(prediction: Prediction, finding: Finding) -> list[str]:
    """TID 4019 Algorithm Parameters, «name=value»: DICOM has no code for a decision threshold or for weights."""
    classifier = prediction.classifier
    facts = {
        "threshold": f"{round(100 * finding.threshold, _PERCENT_DIGITS):g}%",
        "raw-sigmoid": f"{finding.raw:.6f}",
        "weights-sha256": classifier.weights_sha256,
    }
    if classifier.demonstration:
        facts["demonstration"] = "yes: trained on drawings, no clinical meaning"
    facts |= {name: classifier.parameters[name] for name in sorted(classifier.parameters) if name not in facts}
    return [ascii_text(f"{name}={value}", 1024) for name, value in facts.items()]


def _image_library(context: Context) -> Any:
    """TID 1600, by hand: highdicom's own raises for most radiographs (no Imager Pixel Spacing, Secondary Capture)."""
    image = _reference(codes.SOURCE, context)
    modality = context.modality
    described = [
        sr.CodeContentItem(
            name=_concept(codes.MODALITY),
            value=_concept(Code(modality, "DCM", codes.MODALITIES[modality])),
            relationship_type=sr.RelationshipTypeValues.HAS_ACQ_CONTEXT,
        )
    ]
    described += [
        _pixel_count(name, number)
        for name, number in ((codes.PIXEL_DATA_ROWS, context.rows), (codes.PIXEL_DATA_COLUMNS, context.columns))
        if number
    ]
    image.ContentSequence = sr.ContentSequence(described)
    return _container(codes.IMAGE_LIBRARY, [_container(codes.IMAGE_LIBRARY_GROUP, [image])])


def _pixel_count(name: Code, number: int) -> Any:
    item = sr.NumContentItem(
        name=_concept(name),
        value=number,
        unit=_concept(codes.PIXELS),
        relationship_type=sr.RelationshipTypeValues.HAS_ACQ_CONTEXT,
    )
    item.MeasuredValueSequence[0].NumericValue = str(number)  # highdicom writes «1955.0»
    return item


def _reference(name: Code, context: Context) -> Any:
    """An IMAGE item; of a private SOP class a COMPOSITE item, because readers refuse an «image» that they do not know."""
    known = UID(context.sop_class_uid).name != context.sop_class_uid
    item = sr.ImageContentItem if known else sr.CompositeContentItem
    return item(
        name=_concept(name),
        referenced_sop_class_uid=context.sop_class_uid,
        referenced_sop_instance_uid=context.sop_instance_uid,
        relationship_type=sr.RelationshipTypeValues.CONTAINS,
    )


def _container(name: Code, content: list[Any]) -> Any:
    container = sr.ContainerContentItem(
        name=_concept(name), relationship_type=sr.RelationshipTypeValues.CONTAINS, is_content_continuous=False
    )
    container.ContentSequence = sr.ContentSequence(content)
    return container


def _comment(text: str) -> Any:
    return sr.TextContentItem(
        name=_concept(codes.COMMENT),
        value=ascii_text(text, 1024),
        relationship_type=sr.RelationshipTypeValues.CONTAINS,
    )


def _concept(code: Code) -> Any:
    return sr.CodedConcept(value=code.value, scheme_designator=code.scheme, meaning=code.meaning)


def _image(context: Context) -> Reference:
    return Reference(
        sop_class_uid=context.sop_class_uid,
        sop_instance_uid=context.sop_instance_uid,
        series_instance_uid=context.series_instance_uid,
        study_instance_uid=context.study_instance_uid,
    )


def hierarchy(to: Reference) -> Dataset:
    """Hierarchical SOP Instance Reference."""
    instance, series, study = Dataset(), Dataset(), Dataset()
    instance.ReferencedSOPClassUID, instance.ReferencedSOPInstanceUID = to.sop_class_uid, to.sop_instance_uid
    series.SeriesInstanceUID, series.ReferencedSOPSequence = to.series_instance_uid, [instance]
    study.StudyInstanceUID, study.ReferencedSeriesSequence = to.study_instance_uid, [series]
    return study


def _stand_in(context: Context) -> Dataset:
    """All that highdicom learns of the source: its UIDs. It raises on many a received header, so it never sees one.

    Nor does it learn the SOP class: it looks it up to see what to copy, and raises on one that it does not know.
    """
    image = Dataset()
    image.SOPClassUID, image.SOPInstanceUID = ComputedRadiographyImageStorage, context.sop_instance_uid
    image.StudyInstanceUID, image.SeriesInstanceUID = context.study_instance_uid, context.series_instance_uid
    image.Modality = "OT"
    for keyword in ("PatientID", "PatientName", "PatientSex", "AccessionNumber", "StudyID", "ReferringPhysicianName"):
        setattr(image, keyword, "")
    image.PatientBirthDate = image.StudyDate = image.StudyTime = None
    return image


def _items(dataset: Dataset) -> Iterator[Dataset]:
    yield dataset
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                yield from _items(item)


def _comments(prediction: Prediction) -> tuple[str, ...]:
    first = (DEMONSTRATION,) if prediction.classifier.demonstration else ()
    # No group for these: a group without a number stops the OHIF viewer, and 50 % would be a lie.
    not_trained = ", ".join(prediction.not_trained)
    last = (f"Not trained, therefore not reported: {not_trained}.",) if not_trained else ()
    return (*first, SCORES, *prediction.notes, *last)


def _content_time(received_at: datetime, context: Context) -> datetime:
    """In the image's own time zone when it names one, else UTC: the host's zone would make other bytes on another host."""
    if not context.utc_offset:
        return received_at.astimezone(UTC)
    sign = -1 if context.utc_offset[0] == "-" else 1
    hours, minutes = int(context.utc_offset[1:3]), int(context.utc_offset[3:])
    return received_at.astimezone(timezone(sign * timedelta(hours=hours, minutes=minutes)))


def _equipment(prediction: Prediction, received_at: datetime) -> list[Dataset]:
    """Contributing Equipment: who analysed, and the router's signature (`core.provenance`)."""
    classifier = prediction.classifier
    said = f"{DEMONSTRATION} " if classifier.demonstration else ""
    algorithm = _contribution(
        manufacturer=classifier.manufacturer,
        model_name=classifier.algorithm,
        versions=(classifier.version,),
        description=f"{said}Classified the image; weights sha256 {classifier.weights_sha256}",
        at=received_at,
    )
    algorithm.DeviceUID = device_uid(weights_sha256=classifier.weights_sha256)
    router = _contribution(
        manufacturer=provenance.MANUFACTURER,
        model_name=provenance.MODEL_NAME,
        versions=software_versions(),
        description=f"{said}Routed the image and wrote this result. {NOT_FOR_DIAGNOSIS}",
        at=received_at,
    )
    return [algorithm, router]


def _contribution(
    *, manufacturer: str, model_name: str, versions: tuple[str, ...], description: str, at: datetime
) -> Dataset:
    value, scheme, meaning = provenance.PURPOSE
    purpose = Dataset()
    purpose.CodeValue, purpose.CodingSchemeDesignator, purpose.CodeMeaning = value, scheme, meaning
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [purpose]
    item.Manufacturer = ascii_text(manufacturer, 64)
    item.ManufacturerModelName = ascii_text(model_name, 64)
    item.SoftwareVersions = [ascii_text(version, 64) for version in versions]
    item.ContributionDescription = ascii_text(description, 1024)
    # The one time that always says its zone.
    item.ContributionDateTime = at.astimezone(UTC).strftime("%Y%m%d%H%M%S.%f+0000")
    return item


def _private_scheme() -> Dataset:
    """PS3.3 C.12.1.1.7: what a private Coding Scheme Designator stands for."""
    item = Dataset()
    item.CodingSchemeDesignator = PRIVATE_SCHEME
    item.CodingSchemeName = "Labels of classifiers without a standard code"
    item.CodingSchemeResponsibleOrganization = provenance.MANUFACTURER
    return item


def part10(document: Dataset, header: Mapping[str, bytes]) -> bytes:
    """Preamble, File Meta Information and data set (PS3.10 7.1), with the elements of `header` written as they are.

    pydicom would decode and encode them again; a name in two character sets does not survive that.
    """
    ready = {tag_for_keyword(keyword): (dictionary_VR(keyword), value) for keyword, value in header.items()}
    for keyword in COPIED:  # highdicom's placeholders and its own character set
        document.pop(keyword, None)
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\0\1"
    meta.MediaStorageSOPClassUID = document.SOPClassUID
    meta.MediaStorageSOPInstanceUID = document.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = provenance.IMPLEMENTATION_CLASS_UID
    meta.ImplementationVersionName = provenance.IMPLEMENTATION_VERSION_NAME
    file = DicomBytesIO()
    file.is_little_endian, file.is_implicit_VR = True, False
    file.write(bytes(128) + b"DICM")
    write_file_meta_info(file, meta)
    for tag in sorted({*document.keys(), *ready}):
        if tag in ready:
            vr, value = ready[tag]
            file.write_tag(tag)
            file.write(vr.encode())
            file.write_US(len(value))
            file.write(value)
        else:
            write_data_element(file, document[tag], "ISO_IR 6")
    return bytes(file.getvalue())
