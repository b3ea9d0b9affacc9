"""`python -m derain` is the command line."""

from derain.cli import main

main()
