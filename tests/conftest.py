"""What all tests share."""

from hypothesis import settings

# An example's first call may compile a kernel, so no example has a deadline.
settings.register_profile("studyguide", settings(), deadline=None)
settings.load_profile("studyguide")
