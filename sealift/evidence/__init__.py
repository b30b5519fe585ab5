"""What an AMD secure processor says of itself: bytes to meaning, meaning to bytes, and a verdict.

Everything here is a pure function over bytes, a clock that is passed in and a policy, with three edges
that touch files or the network: `files` (bounded reads), `kds` (AMD's key server and its cache directory)
and `cli` with `commands`. Parsers raise `sealift.errors.UnusableInput` and nothing else.

Sources cited as: SEV API (AMD 55766), SNP ABI (AMD 56860), VCEK/KDS (AMD 57230), APM 2 (AMD 24593).
"""
