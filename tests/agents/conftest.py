"""How the examples of these tests are made: without a time limit each, since machines are shared."""

from hypothesis import settings

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
