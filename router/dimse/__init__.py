"""Facts that our SCP and our SCU share: contexts, statuses, peers, guards."""
