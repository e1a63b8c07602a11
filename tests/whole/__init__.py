"""The whole way, from a real sender through a real `router serve` process to a real Orthanc."""
