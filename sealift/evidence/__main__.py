"""`python -m sealift.evidence`: the command group on its own."""

from sealift.evidence.cli.app import app

app(prog_name="sealift evidence")
