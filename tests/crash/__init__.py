"""The proof that an acknowledged image is never lost: nodes are killed at work, disks lose power or fill, peers misbehave."""
