"""The DICOM conformance statement (PS3.2), written from the configuration and from what the code itself decides by."""
