"""Evidence of AMD's secure processors: read, verified, computed, fetched.

====================  =============================================================================
`formats`             bytes and fields: one module for each format
`launch`              what an owner makes for a launch: digests, id blocks, sessions, secrets
`verify`              fields, a policy and a time in; a verdict with reasons out
`fetch`               AMD's key server and the cache of its answers: the only network I/O
`cli`                 the commands `sealift evidence …`
====================  =============================================================================

`formats`, `launch` and `verify` are pure functions: they touch no file, no network and no clock. A room imports
only rooms below it (`verify` → `launch` → `formats`, `fetch` → `formats`, `cli` → all).

Sources cited as: SEV API (AMD 55766), SNP ABI (AMD 56860), VCEK/KDS (AMD 57230), APM 2 (AMD 24593).
"""
