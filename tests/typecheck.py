"""The type checker that the tests execute annotations with: an int may stand for a float, as PEP 484 says."""

from beartype import BeartypeConf, beartype

typecheck = beartype(conf=BeartypeConf(is_pep484_tower=True))
