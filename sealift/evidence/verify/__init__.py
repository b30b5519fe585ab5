"""Fields to a verdict: signatures, chains, revocation, freshness, and the owner's policy.

Begin with the function for the kind of evidence: `snp.verify_snp`, `sev_platform.verify_platform`,
`sev_launch.verify_launch` or `sev_launch.verify_attestation`. Each answers with a `verdict.Verdict`.
"""
