"""`python -m polyvec` is `polyvec`."""

from polyvec.cli import main

main()
