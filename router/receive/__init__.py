"""Storage SCP: from the first PDU to the answer 0x0000."""
