"""A DICOM node that receives, classifies, reports and delivers. Start reading at `docs/flow.md`."""

__version__ = "0.1.0"
