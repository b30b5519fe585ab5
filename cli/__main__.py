"""`python -m cli`: the command `sealift`."""

from cli.main import main

main()
