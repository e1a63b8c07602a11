"""Result objects made of drawn headers and made-up predictions, by the builders of this installation, to see what they hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO
from typing import Any

from pydicom import Dataset, FileMetaDataset, dcmread, dcmwrite
from pydicom.datadict import dictionary_VR
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian

from router import registry
from router.core.findings import ClassifierIdentity, Finding, NotAnalysed, Prediction
from router.core.instance import InstanceKind, SopInstance
from router.core.ports import Explainer, Illustrator, ResultBuilder, ResultObject
from router.core.sight import Heat, Sight, Square, Window
from router.report.context import COPIED
from router.report.summary import StudySummaryBuilder, Summarised

_TEXTS = {
    "UI": "2.25.{}",
    "DA": "2024010{}",
    "TM": "10111{}",
    "CS": "FM",
    "PN": "Name^{}",
    "IS": "{}",
    "DS": "{}",
    "AS": "04{}Y",
}
_OF_ITS_OWN = {"SpecificCharacterSet": ("ISO_IR 100", "ISO_IR 192"), "TimezoneOffsetFromUTC": ("+0100", "+0200")}
_SIDE = 64


class Sample:
    """An image's header and what a classifier said of it; `number` 1 and 2 differ wherever they may."""

    def __init__(self, number: int, *, bare: bool = False) -> None:
        """`bare`: nothing in the header but what a report cannot do without."""
        self.header = _header(number, bare=bare)
        self.instance = _instance(self.header, number)
        self.prediction = _prediction(number)

    def made_by(self, name: str) -> ResultObject:
        """The object that the result builder of this name makes. Raises KeyError, ImportError."""
        builder: Any = registry.load("router.results", name)()
        made: ResultObject | None
        if isinstance(builder, StudySummaryBuilder):
            made = self._summary(builder)
        elif isinstance(builder, Explainer):
            why = NotAnalysed(code=f"code_{self.instance.byte_count}", reason=f"reason {self.instance.byte_count}")
            made = builder.explain(self.header, self.instance, why, self.prediction.classifier)
        elif isinstance(builder, Illustrator):
            made = builder.illustrate(self.header, self.instance, self.prediction, self._sight)
        else:
            assert isinstance(builder, ResultBuilder)
            made = builder.build(self.header, self.instance, self.prediction)
        assert made is not None, f"{name} makes nothing of an image with a finding"
        return made

    def _summary(self, builder: StudySummaryBuilder) -> ResultObject | None:
        report = self.made_by("sr")
        of_report = replace(
            self.instance,
            sop_instance_uid=report.sop_instance_uid,
            sop_class_uid=report.sop_class_uid,
            series_instance_uid=report.series_instance_uid,
            kind=InstanceKind.SR,
        )
        one = Summarised(image=self.instance, prediction=self.prediction, report=of_report)
        return builder.summary(report.data, [one])

    def _sight(self) -> Sight:
        import numpy as np

        rows, columns = self.header.Rows, self.header.Columns
        heat = np.zeros((rows, columns), np.float32)
        heat[20:30, 20:30] = 1
        return Sight(
            rows=rows,
            columns=columns,
            grey=np.linspace(0, 255, rows * columns).astype(np.uint8).reshape(rows, columns),
            window=Window(
                slope=1, intercept=0, centre=2048 + rows, width=4096 + rows, function="LINEAR", inverted=False
            ),
            seen=Square(top=0, left=0, side=rows),
            heats=(
                Heat(finding=self.prediction.findings[0], cells=(7, 7), hottest=(25, 25 + rows / 100), values=heat),
            ),
        )


def _header(number: int, *, bare: bool) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = ComputedRadiographyImageStorage
    dataset.SOPInstanceUID = f"2.25.100{number}"
    dataset.SeriesInstanceUID = f"2.25.200{number}"
    dataset.StudyInstanceUID = f"2.25.300{number}"
    dataset.Modality = "CR"
    dataset.Rows, dataset.Columns = _SIDE * number, _SIDE * number + number
    if not bare:
        dataset.InstanceNumber = number
        for keyword in COPIED:
            if keyword not in dataset:
                own = _OF_ITS_OWN.get(keyword, ("", ""))[number - 1]
                form = _TEXTS.get(dictionary_VR(keyword), keyword[:8] + " {}")
                setattr(dataset, keyword, own or form.format(number))
        dataset.PatientSex = "FM"[number - 1]
    data = BytesIO()
    dcmwrite(data, dataset, enforce_file_format=True)
    data.seek(0)
    return dcmread(data)


def _instance(header: Dataset, number: int) -> SopInstance:
    return SopInstance(
        sop_instance_uid=header.SOPInstanceUID,
        sop_class_uid=header.SOPClassUID,
        study_instance_uid=header.StudyInstanceUID,
        series_instance_uid=header.SeriesInstanceUID,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        digest=f"{number}" * 64,
        byte_count=number,
        spool_key="",
        received_at=datetime(2025, number, number, number, number, number, number, tzinfo=UTC),
        header={"Modality": "CR"},
    )


def _prediction(number: int) -> Prediction:
    identity = ClassifierIdentity(
        name=f"classifier{number}",
        algorithm=f"algorithm{number}",
        version=f"version{number}",
        manufacturer=f"maker{number}",
        weights_sha256=f"{number}" * 64,
        parameters={"number": str(number)},
        demonstration=False,
    )
    finding = Finding(label="Effusion", score=0.8 + number / 100, raw=0.7 + number / 100, threshold=0.5)
    return Prediction(classifier=identity, findings=(finding,))


KINDS: Mapping[str, str] = {
    "sr": "for an image that was classified",
    "not-analysed": "for an image that was to be classified and was not",
    "study-summary": "for a study, when no image was added for summary.quiet_s",
    "heatmap": "for an image with a finding",
    "gsps": "for an image with a finding",
    "key-object": "for an image with a finding",
    "pdf": "for an image with a finding",
}
"""Name of a result builder of ours -> when it makes an object."""
