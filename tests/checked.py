"""The run-time type checker of the tests: beartype, with int accepted for float as typing has it."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
