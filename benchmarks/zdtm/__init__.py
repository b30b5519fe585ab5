"""CRIU's own test suite (ZDTM), program by program: what plain CRIU brings across two hosts, and what Sealift does.

The suite is GPL-2.0 and no part of this tree. `$ZDTM` names a built one (`test/zdtm` of CRIU's sources).
"""
