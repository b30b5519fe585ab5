"""Attestation of a host: its evidence is fetched and verified, its keys are pinned, and only then it gets secrets."""
