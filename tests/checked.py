"""The run-time type checker of the tests: beartype, int accepted for float as in typing."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
