"""What checks the annotations of `unrote` while the suite runs; named by the import hook of conftest.py."""

from beartype import BeartypeConf, beartype

# The numeric tower: an int is welcome where a float is wanted, as type checkers have it.
typechecker = beartype(conf=BeartypeConf(is_pep484_tower=True))
